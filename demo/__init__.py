"""The demo: sample workflows on Cloudflare's own engine, and an exporter that watches them.

`build_engine` builds the engine and `local_engine` runs it on loopback, with the workflows of
`scenarios.mjs`; tests use it too. `sample_instances` creates instances and acts on them.
"""

from demo.local_engine import EngineError, LocalEngine

__all__ = ["EngineError", "LocalEngine"]
