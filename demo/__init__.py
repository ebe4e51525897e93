"""Cloudflare's own Workflows engine, run on loopback by miniflare: `LocalEngine`."""

from demo.engine import EngineError, LocalEngine
from demo.node import install

__all__ = ["EngineError", "LocalEngine", "install"]
