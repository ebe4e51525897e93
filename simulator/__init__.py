"""A simulator of Cloudflare's hosted Workflows API."""

from .api_style import HOSTED, LOCAL_ENGINE, Style
from .clock import ManualClock, SpedClock
from .credentials import QUEUES_EDIT, QUEUES_READ
from .faults import (
    Drip,
    Drop,
    EndlessHeaders,
    Fault,
    Hang,
    Inflate,
    Late,
    Respond,
    Rewrite,
    Stream,
    Truncate,
    error,
    garbage,
    html,
    redirect,
)
from .queue import Queue
from .run_script import (
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
from .threads import in_thread
from .world import Account, Instance, Workflow, World

__all__ = [
    "HOSTED",
    "LOCAL_ENGINE",
    "QUEUES_EDIT",
    "QUEUES_READ",
    "Account",
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
    "Queue",
    "Respond",
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
    "in_thread",
    "parallel",
    "redirect",
    "retried",
    "serve",
    "serve_in_thread",
    "steps",
]
