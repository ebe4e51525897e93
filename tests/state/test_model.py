"""The whole engine against a model that only knows the responses.

Instances live in the simulator; requests fail; the configuration names others of them, or has them
discovered; the exporter polls, saves, reloads, stops, is killed. The model records the responses
that the exporter got, and drops what was not saved when it is killed. What is counted must always
be what the model has seen finished, each thing once. What only a list row or a simple response
showed may be counted later: a request may have to find out which run the row is of, and a simple
response counts only where detail responses fail.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import structlog
import structlog.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from benchmarks.virtual_time import VirtualLoop
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from simulator import (
    Error,
    ManualClock,
    Respond,
    Script,
    Simulator,
    Sleep,
    Step,
    Wait,
    World,
    error,
    parallel,
    retried,
    steps,
)
from simulator.api_results import instance_detail
from simulator.response import success

IDS = ("a", "b", "c")
SELECTIONS: tuple[dict[str, Any], ...] = (
    {"instances": IDS},
    {"instances": ("a", "b")},
    {"instances": ("b", "c")},
    {"instances": ("c",)},
    {"discover": {}},
    {"instances": ("a",), "discover": {}},
    {"discover": {"statuses": ["errored"]}},
    {"discover": {"max_instances": 1}},
)
SELECTED = st.sampled_from(SELECTIONS)
SCRIPTS = (
    Script(steps("fetch", "store")),
    Script((*steps("fetch"), Sleep("nap", 20), *steps("store"))),
    Script((retried("charge", failures=3), *steps("ship"))),
    Script((retried("charge", failures=1, succeeds=False),), throws=Error("TypeError", "no")),
    Script((Wait("approval", timeout=40), *steps("ship")), queued=5),
    Script(steps("fetch"), queued=40),
    Script((parallel(steps("left"), (retried("right", failures=2),)), Sleep("nap", None))),
    Script(
        (retried("charge", failures=2, succeeds=False),),
        throws=Error("Error", "charge"),
        rollback=(Step("undo"),),
    ),
)
FAILURES = (
    error(500, 1, "broken"),
    error(200, 1, "no success"),
    error(403, 1, "not allowed"),
    error(503, 1, "busy"),
)
STALE = "x-stale"
"""A header of responses that come from a replica that is behind."""
COUNTED = re.compile(
    r"cloudflare_workflow_(?P<family>runs_finished|queue_duration|step_duration|step_attempt_duration)"
    r"\w*?(_total|_count)\{(?P<labels>.*)\} (?P<value>\S+)"
)
LABEL = re.compile(r'(\w+)="([^"]*)"')

T = TypeVar("T")
Thing = tuple[object, ...]


def finished(instance_id: str, result: dict[str, Any]) -> dict[Thing, Thing]:
    """What of a result is finished: each thing by its identity, with what it counts as."""
    run = (instance_id, result["queued"])
    found: dict[Thing, Thing] = {}
    if result["status"] in ("complete", "errored", "terminated"):
        # A run that is restarted from a step ends once more.
        found["run", *run, result["end"]] = ("runs_finished", result["status"])
    if result["start"]:
        found["queue", *run] = ("queue_duration",)
    for step in result["steps"]:
        key = (*run, step["type"], step.get("name"), step.get("start"))
        name = re.sub(r"-\d+$", "", step.get("name") or "")
        if "finished" in step:
            outcome = "failure" if step["error"] or step.get("success") is False else "success"
            over = step["finished"]
        else:
            outcome = "success" if step.get("success") else "failure"
            over = step.get("end") is not None and step.get("success") is not None
        if over:
            found["step", *key] = ("step_duration", name, step["type"], outcome)
        attempts = sorted(step.get("attempts") or (), key=lambda a: a["start"])
        for number, attempt in enumerate(attempts):
            if attempt["end"] is not None and attempt["success"] is not None:
                result_of = "success" if attempt["success"] else "failure"
                found["attempt", *key, number] = ("step_attempt_duration", name, result_of)
    return found


def fetched(instance_id: str, result: dict[str, Any], body: bytes) -> dict[Thing, Thing]:
    """What is finished of an instance and was fetched by now, where `body` is what scrapes see."""
    found = finished(instance_id, result)
    if f'instance_id="{instance_id}"'.encode() not in body:
        # It is only counted, and has its steps fetched when it ends.
        ended = {t[1:3] for t in found if t[0] == "run"}
        found = {t: c for t, c in found.items() if t[1:3] in ended}
    return found


@dataclass
class Received:
    """What responses showed to be finished: detail responses, and any."""

    full: dict[Thing, Thing] = field(default_factory=dict)
    all: dict[Thing, Thing] = field(default_factory=dict)

    def copy(self) -> "Received":
        return Received(dict(self.full), dict(self.all))


class RecordingTransport(httpx.AsyncBaseTransport):
    """Records what the responses show that the exporter gets."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator, self._inner = simulator, httpx.ASGITransport(simulator)
        self.received = Received()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        full = b"simple=false" in request.url.query
        is_list = request.url.path.endswith("/instances")
        if response.status_code == 200 and (full or is_list or b"simple=true" in request.url.query):
            envelope = msgspec.json.decode(await response.aread())
            *_, workflow, _, instance_id = f"{request.url.path}{'/' * is_list}".split("/")
            if envelope["success"] and full:
                self._record(instance_id, envelope["result"], stale=STALE in response.headers)
            elif envelope["success"] and not is_list:
                self._record_without_steps(instance_id, envelope["result"])
            elif envelope["success"]:
                for row in envelope["result"]:
                    self._record_row(row["id"], workflow)
        return response

    def _record(self, instance_id: str, result: dict[str, Any], *, stale: bool) -> None:
        found, known = finished(instance_id, result), truth(self._simulator, instance_id)
        # One that shows all there is isn't behind, whatever it was made for.
        stale = stale and (known is None or found != finished(instance_id, known))
        # Nothing in one that waits after a restart from a step says that it isn't from before the
        # end that a row has shown: it is taken once that step has begun.
        stale = stale or (result["status"] == "queued" and result["start"] is not None)
        for thing, counts_as in found.items():
            if not stale:
                self.received.full.setdefault(thing, counts_as)
            self.received.all.setdefault(thing, counts_as)

    def _record_row(self, instance_id: str, workflow: str) -> None:
        # A row doesn't name the run that it is of; at this moment it is the latest.
        result = truth(self._simulator, instance_id, workflow)
        assert result is not None, "it is in a list"
        self._record_without_steps(instance_id, result)

    def _record_without_steps(self, instance_id: str, result: dict[str, Any]) -> None:
        for thing, counts_as in finished(instance_id, {**result, "steps": []}).items():
            self.received.all.setdefault(thing, counts_as)


def truth(
    simulator: Simulator, instance_id: str, workflow: str = "orders"
) -> dict[str, Any] | None:
    """The result of a detail request at this moment; None: there is no such instance."""
    now = simulator.world.settle()
    instance = simulator.world.account("acc").workflow(workflow).get(instance_id, now)
    return None if instance is None else instance_detail(instance, now)


def counts(body: bytes, workflow: str = "orders") -> Counter[Thing]:
    """What an exposition counts of a workflow."""
    counted: Counter[Thing] = Counter()
    for match in COUNTED.finditer(body.decode()):
        labels, value = dict(LABEL.findall(match["labels"])), float(match["value"])
        if value and labels["workflow"] == workflow:
            key = (labels.get(n) for n in ("step", "step_type", "status", "outcome"))
            counted[match["family"], *(k for k in key if k is not None)] += int(value)
    return counted


def status(body: bytes, instance_id: str) -> str | None:
    """The status that an exposition shows of an instance; None: the instance has no series."""
    line = rf'_instance_status\{{.*instance_id="{instance_id}",status="(\w+)"\}} 1$'
    found = re.search(line, body.decode(), re.MULTILINE)
    return found and found[1]


class Upstream(RuleBasedStateMachine):
    """Up to three instances of one workflow, by the simulator's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.clock = ManualClock()
        self.simulator = Simulator(World(self.clock))
        self.simulator.access.token("secret")
        self.orders = self.simulator.world.account("acc").workflow("orders")
        self.quiet = structlog.testing.capture_logs()
        self.quiet.__enter__()

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    @rule(instance_id=st.sampled_from(IDS), script=st.sampled_from(SCRIPTS))
    def create(self, instance_id: str, script: Script) -> None:
        if self.orders.get(instance_id, self.simulator.world.settle()) is None:
            # An instance of that name may just have been deleted, and times are to the second.
            self.clock.advance(2)
            self.orders.create(instance_id, script)

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 15.0, 60.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        instance_id=st.sampled_from(IDS),
        what=st.sampled_from(["pause", "resume", "terminate", "restart", "delete", "send_event"]),
    )
    def intervene(self, instance_id: str, what: str) -> None:
        instance = self.orders.get(instance_id, self.simulator.world.settle())
        if instance is not None:
            self.clock.advance(0.001)  # a run is named by the millisecond in which it was queued
            getattr(instance, what)(*(("approve",) if what == "send_event" else ()))

    @rule(
        instance_id=st.sampled_from(IDS),
        which=st.integers(0, 5),
        script=st.sampled_from(SCRIPTS) | st.none(),
        queued=st.sampled_from([0.0, 0.0, 20.0]),
    )
    def restart_from_a_step(
        self, instance_id: str, which: int, script: Script | None, queued: float
    ) -> None:
        now = self.simulator.world.settle()
        instance, result = self.orders.get(instance_id, now), truth(self.simulator, instance_id)
        if instance is None or result is None:
            return
        kinds = ("step", "sleep", "waitForEvent")
        steps_ = [step for step in result["steps"] if step["type"] in kinds]
        if steps_:
            self.clock.advance(0.001)
            step = steps_[which % len(steps_)]
            name, number = step["name"].rsplit("-", 1)
            instance.restart_from(name, int(number), step["type"], script=script, queued=queued)

    @rule(
        failure=st.sampled_from(FAILURES),
        kind=st.sampled_from(["simple", "detail"]),
        times=st.integers(1, 3),
    )
    def calls_will_fail(self, failure: Any, kind: str, times: int) -> None:
        self.simulator.faults.add(failure, kind=kind, times=times)

    @rule(instance_id=st.sampled_from(IDS), simple=st.booleans(), skip=st.integers(0, 2))
    def a_replica_will_be_behind(self, instance_id: str, simple: bool, skip: int) -> None:
        """A later response shows an instance as it is now."""
        now = self.simulator.world.settle()
        instance = self.orders.get(instance_id, now)
        if instance is not None:
            body = success(instance_detail(instance, now, simple=simple)).body
            self.simulator.faults.add(
                Respond(body=body, headers={STALE: "yes"}),
                kind="simple" if simple else "detail",
                instance=instance_id,
                skip=skip,
                times=1,
            )

    def teardown(self) -> None:
        self.quiet.__exit__(None, None, None)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Exporter(Upstream):
    """One exporter, with its state in a file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.state = self.folder / "0.db"
        self.saved = Received()
        self.shown: Counter[Thing] = Counter()
        self.restarts = 0

    @initialize(selected=SELECTED)
    def begin(self, selected: dict[str, Any]) -> None:
        # What ended before instances were first discovered would be history.
        self.start({"discover": {}})
        self.reload(selected)

    def start(self, selected: dict[str, Any]) -> None:
        async def started() -> App:
            settings = self.settings(selected)
            app = App(
                settings,
                clock=Clock(wall=self.clock, monotonic=self.clock),
                transport=self.transport,
            )
            # Without the loop that saves: when that happens, the rules decide.
            await app.writer.open(self.state)
            await app.watched.apply(settings)
            return app

        self.transport = RecordingTransport(self.simulator)
        self.transport.received = self.saved.copy()
        self.app = self.do(started())

    def settings(self, selected: dict[str, Any]) -> Settings:
        self.selected = selected
        workflow = {"name": "orders", **selected}
        account = {"name": "acc", "account_id": "acc", "api_token": "secret"}
        return Settings.model_validate(
            {
                "accounts": [{**account, "workflows": [workflow]}],
                "api": {"url": "http://localhost/client/v4/accounts/{account_id}"}
                | {"requests_per_5m": 10**9},
                "poll": {"interval": "15s", "detail_refresh": "1m", "forget_after": "1m"},
            }
        )

    @rule()
    def poll(self) -> None:
        self.clock.advance(15)
        self.do(self.polled())

    async def polled(self) -> None:
        (account,), (poller,) = self.app.accounts, self.app.pollers
        if account.workflows.discoveries:
            await account.list_passes()
        await poller.round(whole=True)

    @rule()
    def poll_and_save(self) -> None:
        self.poll()
        self.save()

    @rule()
    def save(self) -> None:
        self.do(self.app.writer.save())
        self.saved = self.transport.received.copy()
        self.check()

    @rule(selected=SELECTED)
    def reload(self, selected: dict[str, Any]) -> None:
        self.do(self.app.watched.apply(self.settings(selected)))
        self.save()

    @rule(selected=SELECTED)
    def stop(self, selected: dict[str, Any]) -> None:
        self.do(self.app.writer.close())
        self.saved = self.transport.received.copy()
        self.start(selected)
        self.save()

    @rule(selected=SELECTED)
    def kill(self, selected: dict[str, Any]) -> None:
        self.restarts += 1
        copy = self.folder / f"{self.restarts}.db"
        for suffix in ("", "-wal"):
            if Path(f"{self.state}{suffix}").exists():
                shutil.copy(f"{self.state}{suffix}", f"{copy}{suffix}")
        self.do(self.app.writer.close())  # what it writes now is lost
        self.state = copy
        self.start(selected)
        self.save()

    def check(self) -> None:
        """What is counted is what was seen finished and saved, each thing once."""
        full = Counter(self.saved.full.values())
        body, _ = self.app.exposition.render()
        counted = counts(body)
        assert counted <= Counter(self.saved.all.values()), "counted twice, or not seen"
        assert self.skipped(body) or counted >= full, "seen, not counted"
        assert not self.shown - counted, "a counter went back"
        self.shown = counted

    def skipped(self, body: bytes) -> bool:
        """Whether a run was dropped of which no detail response came: its steps, which a later
        one shows, are history."""
        skipped = re.search(rb"details_skipped_total\{.*\} (\d+)", body)
        assert skipped
        return skipped[1] != b"0"

    @rule()
    def when_quiet_all_is_seen(self) -> None:
        """Without failures two polls, with time for a refresh between them, see all there is.

        Named after the other rules without arguments: Hypothesis begins with fifty times the first
        by name, and this one takes longest.
        """
        self.simulator.faults.clear()
        self.clock.advance(60)
        self.poll()
        self.clock.advance(600)
        self.poll_and_save()
        body, _ = self.app.exposition.render()
        for instance_id in IDS if "discover" in self.selected else self.selected["instances"]:
            result = truth(self.simulator, instance_id)
            if result is None:
                continue
            assert status(body, instance_id) in (None, result["status"]), "a wrong status"
            if not self.skipped(body):
                found = fetched(instance_id, result, body)
                assert found.keys() <= self.saved.full.keys()

    def teardown(self) -> None:
        if hasattr(self, "app"):
            self.do(self.app.writer.close())
        super().teardown()
        shutil.rmtree(self.folder)


PARTS = 5


@pytest.mark.slow(25)
@pytest.mark.parametrize("part", range(1, PARTS + 1), ids="part {}".format)
def test_it_counts_what_it_has_seen_finished_and_recorded(part: int) -> None:
    """In parts, each with its share of the examples, which workers run side by side."""
    run_state_machine_as_test(
        Exporter,
        settings=settings(
            max_examples=settings().max_examples // PARTS,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
