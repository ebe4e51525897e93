"""Cloudflare's own Workflows engine, run on loopback by miniflare: `LocalEngine`."""

from upstreams.local_engine.engine import EngineError, LocalEngine
from upstreams.local_engine.node import install

__all__ = ["EngineError", "LocalEngine", "install"]
