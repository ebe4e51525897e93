"""The demo: sample workflows on Cloudflare's own engine, and an exporter that watches them.

`local_engine` runs the engine on loopback, by miniflare (`engine_server.mjs`), with the workflows
of `scenarios.mjs`; tests use it too. `sample_instances` creates instances and acts on them.
"""

from demo.local_engine import EngineError, LocalEngine
from demo.node_packages import install

__all__ = ["EngineError", "LocalEngine", "install"]
