"""A simulator of Cloudflare's hosted Workflows API."""

from .clock import ManualClock, SpedClock
from .faults import (
    Answer,
    Drip,
    Drop,
    Fault,
    Hang,
    Late,
    Rewrite,
    Truncate,
    error,
    garbage,
    html,
    redirect,
)
from .script import (
    Attempt,
    Config,
    Error,
    Parallel,
    Script,
    Sleep,
    Step,
    Wait,
    parallel,
    retried,
    steps,
)
from .server import serve, serve_in_thread
from .simulator import Simulator
from .streams import EndlessHeaders, Inflate, Stream
from .style import HOSTED, LOCAL_ENGINE, Style
from .world import Account, Instance, Workflow, World

__all__ = [
    "HOSTED",
    "LOCAL_ENGINE",
    "Account",
    "Answer",
    "Attempt",
    "Config",
    "Drip",
    "Drop",
    "EndlessHeaders",
    "Error",
    "Fault",
    "Hang",
    "Inflate",
    "Instance",
    "Late",
    "ManualClock",
    "Parallel",
    "Rewrite",
    "Script",
    "Simulator",
    "Sleep",
    "SpedClock",
    "Step",
    "Stream",
    "Style",
    "Truncate",
    "Wait",
    "Workflow",
    "World",
    "error",
    "garbage",
    "html",
    "parallel",
    "redirect",
    "retried",
    "serve",
    "serve_in_thread",
    "steps",
]
