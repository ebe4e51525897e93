"""What a simulator begins with: a named scenario, or one in a file."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from .credentials import PERMISSIONS
from .run_script import Attempt, Error, Script, Sleep, Step, Wait, parallel, retried, steps
from .run_timeline import undisturbed
from .simulator import Simulator
from .world import Arrival, Instance

ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
TOKEN = "simulator-token"


class NewCredential(Struct, forbid_unknown_fields=True):
    """An API token, or an email with its key."""

    token: str = ""
    email: str = "user@example.com"
    key: str = ""
    permissions: frozenset[str] = PERMISSIONS
    accounts: frozenset[str] | None = None

    def add(self, simulator: Simulator) -> None:
        if self.key:
            simulator.access.key(self.email, self.key, accounts=self.accounts)
        if self.token:
            simulator.access.token(
                self.token,
                user=self.email,
                permissions=self.permissions,
                accounts=self.accounts,
            )


class NewInstance(Struct, forbid_unknown_fields=True):
    """An instance to create; `after` is in seconds from now, negative for the past."""

    workflow: str
    account: str = ACCOUNT
    id: str | None = None
    script: Script = Script()
    after: float = 0.0
    params: Any = None
    trigger: str = "api"

    def add(self, simulator: Simulator) -> Instance:
        workflow = simulator.world.account(self.account).workflow(self.workflow)
        return workflow.create(
            self.id,
            self.script,
            at=simulator.world.clock() + self.after,
            params=self.params,
            trigger=self.trigger,
        )


class Scenario(Struct, forbid_unknown_fields=True):
    """A scenario file, YAML or JSON."""

    credentials: tuple[NewCredential, ...] = (NewCredential(TOKEN),)
    instances: tuple[NewInstance, ...] = ()

    def add(self, simulator: Simulator) -> None:
        for credential in self.credentials:
            credential.add(simulator)
        for instance in self.instances:
            instance.add(simulator)


def typical_scripts(count: int, seed: int = 0, pace: float = 1.0) -> list[Script]:
    """Scripts as a shop might have them: most complete, some retry, wait or fail.

    A run takes 2 minutes on average at a pace of 1, and twice as long at a pace of 2.
    """
    chance = random.Random(seed)
    failure = Error("TypeError", "upstream said 503")

    def seconds(mean: float) -> float:
        return pace * mean * chance.uniform(0.2, 1.8)

    def script() -> Script:
        lot = chance.random()
        before = steps("fetch", "transform", duration=seconds(8))
        after = steps("store", duration=seconds(5))
        middle: tuple[Any, ...] = ()
        if lot < 0.25:
            middle = (retried("charge", chance.randint(1, 4), backoff=seconds(10), error=failure),)
        elif lot < 0.45:
            middle = (Sleep("cool-down", seconds(180)),)
        elif lot < 0.6:
            middle = (Wait("approval", timeout=seconds(300), caught=True),)
        elif lot < 0.75:
            middle = (parallel(*(Step("notify", (Attempt(seconds(15)),)) for _ in range(3))),)
        elif lot < 0.85:
            failed = retried("charge", 3, succeeds=False, backoff=seconds(20), error=failure)
            middle = (failed,)
        elif lot < 0.88:
            return Script(before, queued=seconds(2), throws=Error(message="no such customer"))
        return Script((*before, *middle, *after), queued=seconds(2))

    return [script() for _ in range(count)]


def traffic(
    rate: float, start: float, *, scripts: list[Script], seed: int = 0, prefix: str = "run"
) -> Iterator[Arrival]:
    """Arrivals without end at random times, `rate` a second, from `start` (wall seconds) on."""
    chance = random.Random(seed)
    at = start
    for number in itertools.count(1):
        at += chance.expovariate(rate)
        yield at, f"{prefix}-{number}", chance.choice(scripts)


def crowd(simulator: Simulator, live: int, workflows: Iterable[str] = ("orders",)) -> None:
    """About `live` instances under steady churn, as if it had begun long ago."""
    names = list(workflows)
    for index, name in enumerate(names):
        scripts = typical_scripts(500, seed=index)
        lives = [script_seconds(script) for script in scripts]
        rate = live / len(names) * len(lives) / sum(lives)
        start = simulator.world.clock() - max(lives)
        arrivals = traffic(rate, start, scripts=scripts, seed=index)
        simulator.world.account(ACCOUNT).workflow(name).arrivals(arrivals)


def script_seconds(script: Script) -> float:
    """How long a script plays when nobody intervenes."""
    return undisturbed(script).end / 1000


def demo(simulator: Simulator) -> None:
    """A small shop that keeps moving."""
    simulator.access.token(TOKEN)
    crowd(simulator, 30, ("orders", "billing"))


def crowded(simulator: Simulator) -> None:
    """10,000 live instances of five workflows."""
    simulator.access.token(TOKEN)
    crowd(simulator, 10_000, ("orders", "billing", "reports", "imports", "mails"))


NAMED = {"empty": Scenario().add, "demo": demo, "crowd": crowded}


def load(simulator: Simulator, scenario: str) -> None:
    """Act out a named scenario, or the one in a file.

    Raises:
        OSError: there is neither a scenario nor a file of that name.
        msgspec.ValidationError: the file isn't a scenario; the message says where.
    """
    if scenario in NAMED:
        NAMED[scenario](simulator)
    else:
        # JSON is YAML too.
        msgspec.yaml.decode(Path(scenario).read_bytes(), type=Scenario).add(simulator)
