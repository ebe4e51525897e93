"""Replicas on a real PostgreSQL through everything that happens to processes, networks and
databases: nothing is counted twice, nothing is lost, and no two count one workflow at once."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from simulator import Simulator, in_thread, serve_in_thread
from tests.e2e.daemon import Daemon, configuration, daemon
from tests.e2e.scrape import Samples, differences, samples
from tests.postgres import PostgresServer
from tests.relay import Relay, relay
from tests.state.test_kills import FAULTS, SCRIPTS, counts, differing, finished
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.slow(80)]

LEASE = 10.0
"""Seconds; with the least that can be set, 5 s, a busy machine renews none in time."""
FLAGS = ("--poll.interval=1s", "--poll.detail-refresh=1s")
WORKFLOWS = [f"workflow-{number}" for number in range(5)]
OWN = "cloudflare_workflows_exporter_"
_AHEAD = """
import runpy, sys, time
of_now = time.time
time.time = lambda: of_now() + 86400
del sys.argv[:2]  # this, and the interpreter
sys.argv[0] = sys.argv.pop(1)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a Python module on a machine whose clock is a day ahead."""


class Network:
    """A relay before the database, that can be cut from a thread without an event loop."""

    def __init__(self, between: Relay, loop: asyncio.AbstractEventLoop) -> None:
        self._between, self._loop = between, loop
        self.address = between.address

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Not a byte goes through."""
        self._set(True)
        try:
            yield
        finally:
            self._set(False)

    def _set(self, silent: bool) -> None:
        self._loop.call_soon_threadsafe(setattr, self._between, "silent", silent)


@contextmanager
def network(port: int) -> Iterator[Network]:
    with in_thread(relay()) as (between, loop):
        between.port = port
        yield Network(between, loop)


class Fleet:
    """Replicas that share a database, all of which are scraped all the time.

    Attributes:
        running: The replicas, by the name of their folder.
        stopped: Those that stand still.
    """

    def __init__(self, folder: Path, api: str, url: str) -> None:
        self.running: dict[str, Daemon] = {}
        self.stopped: set[str] = set()
        self.shown: Samples = {}
        self._latest: dict[str, str] = {}
        self._folder, self._api, self._url = folder, api, url
        self._stacks: dict[str, ExitStack] = {}

    def start(self, name: str, *, url: str = "", called: str = "", ahead: bool = False) -> Daemon:
        """Runs a replica, which reaches the database at `url` and is `called` like its folder; its
        clock may be a day ahead."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        discovered = [{"name": "workflow-*", "discover": {"min_age": "0s"}}]
        sections = {
            "state": {"url": url or self._url},
            "replica": {"name": called or name, "lease": f"{LEASE:.0f}s"},
        }
        keys = {"api_token": "secret", "account_id": "shared", "workflows": discovered}
        configuration(folder, self._api, sections, **keys)
        stack = self._stacks[name] = ExitStack()
        self.running[name] = stack.enter_context(
            daemon(folder, *FLAGS, within=[sys.executable, "-c", _AHEAD] if ahead else [])
        )
        return self.running[name]

    def end(self, name: str, number: signal.Signals) -> None:
        """Ends a replica by a signal."""
        self.running.pop(name).stop(number)
        self._stacks.pop(name).close()

    @contextmanager
    def standing_still(self, name: str) -> Iterator[None]:
        self.stopped.add(name)
        self.running[name].process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.running[name].process.send_signal(signal.SIGCONT)
            self.stopped.discard(name)

    def close(self) -> None:
        for name in list(self.running):
            self.end(name, signal.SIGKILL)

    def _scrape(self, name: str) -> str:
        try:
            return self.running[name].metrics()
        except httpx.HTTPError:
            return ""  # it was cut: its leases ran out meanwhile

    def scrape(self) -> dict[str, Samples]:
        """What each of them counts now, after it is held to what was shown before.

        They are scraped there and back: whoever shows a count first and last has had it all the
        time, and no one else may have shown it meanwhile.
        """
        names = [name for name in self.running if name not in self.stopped]
        there = {name: self._counted(name) for name in names}
        back = {name: self._counted(name) for name in reversed(names)}
        for outer in names:
            throughout = there[outer].keys() & back[outer].keys()
            for inner in names[names.index(outer) + 1 :]:
                both = throughout & (there[inner].keys() | back[inner].keys())
                assert not both, (outer, inner, both)
        return back

    def _counted(self, name: str) -> Samples:
        text = self._latest[name] = self._scrape(name)
        found = counts(text)
        lower = {k: (v, found[k]) for k, v in self.shown.items() if found.get(k, v) < v}
        assert not lower, (name, lower)
        self.shown |= found
        return found

    def total(self) -> Samples:
        """What all of them count together."""
        return {key: value for found in self.scrape().values() for key, value in found.items()}

    def own(self, name: str) -> dict[str, float]:
        """A replica's metrics of itself."""
        return self._own(self._scrape(name))

    def _own(self, text: str) -> dict[str, float]:
        return {n.removeprefix(OWN): v for (n, own), v in samples(text, OWN).items() if not own}

    def shows_gauges(self, name: str) -> bool:
        return "cloudflare_workflow_up{" in self._scrape(name)

    def wait_until_balanced(self) -> None:
        """Until each holds its fair share, and shows what is counted of it."""

        def balanced() -> bool:
            named = {dict(own)["workflow"] for _, own in self.total()}
            owns = [self._own(self._latest[name]) for name in self.running]
            held = [int(own.get("workflows_held", 0)) for own in owns]
            whole = sum(held) == len(WORKFLOWS) == len(named)
            return whole and max(held) - min(held) <= 1

        self.wait_until(balanced)

    def wait_until_counted(self, name: str) -> None:
        """Until a replica shows what it counts."""
        self.wait_until(lambda: bool(self.scrape()[name]))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        # All replicas are scraped each time, twice.
        wait_until(condition, self.stderr, every=0.2)

    def stderr(self) -> str:
        return "\n".join(f"{n}: {d.stderr()[-3000:]}" for n, d in self.running.items())


def begin(simulator: Simulator, seconds: float) -> None:
    """Runs that begin one after the other for so long, the same in both accounts."""
    now, chance = time.time(), random.Random(6)
    moments = [now + 1 + 0.5 * number for number in range(int(2 * seconds))]
    placed = [(at, chance.choice(WORKFLOWS), chance.choice(SCRIPTS)) for at in moments]
    for account in simulator.world.accounts.values():
        for number, (at, workflow, script) in enumerate(placed):
            account.workflows[workflow].create(f"run-{number}", script, at=at)


def test_everything_is_counted_once_through_every_fault(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    simulator = Simulator()
    simulator.access.token("secret")
    for fault in FAULTS:
        simulator.faults.add(fault, account="shared", probability=0.05 / len(FAULTS))
    for account in ("shared", "calm"):
        for name in WORKFLOWS:
            simulator.world.account(account).workflow(name)
    calm_folder = tmp_path / "calm"
    calm_folder.mkdir()
    database = postgres.new_database()
    with ExitStack() as stack:
        served = stack.enter_context(serve_in_thread(simulator))
        api = served.url + "/accounts/{account_id}"
        discovered = [{"name": "workflow-*", "discover": {"min_age": "0s"}}]
        configuration(calm_folder, api, api_token="secret", account_id="calm", workflows=discovered)
        calm = stack.enter_context(daemon(calm_folder, *FLAGS))
        between = stack.enter_context(network(postgres.port))
        fleet = Fleet(tmp_path, api, postgres.url(database))
        stack.callback(fleet.close)
        calm.wait_until_ready()
        fleet.start("a").wait_until_ready()
        fleet.wait_until_balanced()
        begin(simulator, 60)

        # One, then three, one of them behind a network of its own; two have the same name.
        fleet.start("b", url=postgres.url(database, address=between.address))
        fleet.start("c", called="b")
        fleet.wait_until_balanced()

        # One is killed, and its successor has a wrong clock.
        fleet.end("a", signal.SIGKILL)
        fleet.start("d", ahead=True)
        fleet.wait_until_balanced()

        # One stands still for longer than a lease: the others take over, and it doesn't count.
        with fleet.standing_still("c"):
            fleet.wait_until(lambda: fleet.own("d").get("replicas") == 2)
            fleet.wait_until(lambda: fleet.own("d").get("workflows_unheld") == 0)
        fleet.wait_until_balanced()
        fleet.wait_until(lambda: fleet.own("c").get("leases_lost_total", 0) > 0)

        # One lacks the database for longer than a lease, and shows gauges meanwhile.
        with between.cut():
            fleet.wait_until(lambda: not fleet.scrape()["b"])
            fleet.wait_until(lambda: fleet.shows_gauges("b"))
            fleet.wait_until(lambda: fleet.own("d").get("replicas") == 2)
        fleet.wait_until_balanced()

        # The database restarts, in both ways, and is away for longer than a lease.
        for how in (signal.SIGINT, signal.SIGQUIT):
            postgres.stop(how)
            postgres.start()
        fleet.wait_until_balanced()
        postgres.stop()
        try:
            fleet.wait_until(lambda: not any(fleet.scrape().values()))
        finally:
            postgres.start()
        fleet.wait_until_balanced()

        # A rolling update, then one alone, then three again.
        for old, new in (("b", "e"), ("c", "f"), ("d", "g")):
            fleet.start(new)
            fleet.end(old, signal.SIGTERM)
            fleet.wait_until_balanced()
        fleet.end("e", signal.SIGTERM)
        fleet.end("f", signal.SIGTERM)
        fleet.wait_until_balanced()
        fleet.start("h")
        fleet.start("i")
        fleet.wait_until_balanced()

        begun = sum(len(w.instances) for w in simulator.world.account("calm").workflows.values())
        fleet.wait_until(lambda: finished(fleet.total()) >= begun)
        wait_until(
            lambda: not differing(fleet.total(), calm),
            lambda: "\n".join(differences(fleet.shown, counts(calm.metrics()))),
            every=0.2,
        )
        assert finished(fleet.shown) == begun
