"""Time, handed in: schedules run on the monotonic clock, values are wall-clock times."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """Two clocks, both in seconds; `wall` is Unix time."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
