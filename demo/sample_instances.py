"""The demo's sample instances, and the driver that acts on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal

from demo.local_engine import Action, LocalEngine, Workflow

ENDED = {"complete", "errored", "terminated"}


@dataclass(frozen=True)
class Sample:
    """An instance that is created once and then acted on in turn.

    Attributes:
        scenario: what it plays (see scenarios.mjs), with `params`.
        actions: what is done to it, by its status.
    """

    workflow: Workflow
    instance_id: str
    scenario: str
    params: Mapping[str, object] = field(default_factory=dict)
    actions: Mapping[str, Action] = field(default_factory=dict)

    def next_action(self, status: str) -> Action | None:
        """The action in this status: an ended instance is restarted."""
        return "restart" if status in ENDED else self.actions.get(status)


SAMPLES = (
    Sample("orders", "demo-ok", "ok"),
    Sample("billing", "demo-error", "error"),
    Sample("orders", "demo-retry", "retry", {"delay": "10 seconds"}),
    Sample("billing", "demo-stalled", "stalled"),
    Sample("orders", "demo-wait", "wait", actions={"running": "event"}),
    Sample("billing", "demo-sleep", "sleep", actions={"running": "pause", "paused": "resume"}),
    Sample("orders", "demo-exhaust", "exhaust"),
    Sample("billing", "demo-throw", "throw"),
    Sample("orders", "demo-parallel", "parallel"),
    Sample("billing", "demo-caught", "caught"),
    Sample("orders", "demo-slow", "slowstep", {"ms": 20_000}),
    Sample("billing", "demo-timeout", "steptimeout"),
    Sample("orders", "demo-stopped", "sleep", actions={"running": "terminate"}),
    Sample("billing", "demo-rollback", "rollback"),
)


class SampleDriver:
    """Acts on the samples, one at a time, in turn."""

    def __init__(self, engine: LocalEngine, samples: Sequence[Sample] = SAMPLES) -> None:
        self._engine = engine
        self._turns = cycle(samples)
        self._created: set[str] = set()

    def advance(self) -> Literal["create"] | Action | None:
        """Acts on the next sample; what was done to it."""
        sample = next(self._turns)
        if sample.instance_id not in self._created:
            self._engine.create(
                sample.workflow, sample.instance_id, sample.scenario, **sample.params
            )
            self._created.add(sample.instance_id)
            return "create"
        status = self._engine.get(sample.workflow, sample.instance_id)["status"]
        action = sample.next_action(status)
        if action is not None:
            self._engine.act(sample.workflow, sample.instance_id, action)
        return action
