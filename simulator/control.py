"""HTTP endpoints below `/_control` by which other programs control the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from .clock import ManualClock
from .faults import WireAction
from .run_script import Script
from .scenarios import NewCredential, NewInstance
from .simulator import Simulator
from .world import Instance


class NewFault(Struct, forbid_unknown_fields=True):
    """A fault rule; the fields are those of `faults.Fault`."""

    action: WireAction
    path: str | None = None
    kind: str | None = None
    account: str | None = None
    workflow: str | None = None
    instance: str | None = None
    skip: int = 0
    every: int = 1
    probability: float = 1.0
    times: int | None = None


class NewLimit(Struct, forbid_unknown_fields=True):
    quota: int | None = None
    window: float = 300.0
    lockout: float = 300.0


class Spending(Struct, forbid_unknown_fields=True):
    requests: int
    user: str = "user@example.com"


class Advance(Struct, forbid_unknown_fields=True):
    seconds: float


class Intervention(Struct, forbid_unknown_fields=True):
    """`value` is the forced status, the event's payload or the whole result.

    A restart with a `step` is from the `number`-th of that name and `type`.
    """

    after: float = 0.0
    value: Any = None
    event_type: str = "approve"
    source: str = "api"
    rollback: bool = False
    script: Script | None = None
    step: str = ""
    number: int = 1
    type: str = "step"


def intervene(instance: Instance, verb: str, wanted: Intervention, now: float) -> None:
    """Does what the verb says.

    Raises:
        KeyError: there is no such verb.
    """
    at = now + wanted.after
    verbs: dict[str, Callable[[], None]] = {
        "pause": lambda: instance.pause(at),
        "resume": lambda: instance.resume(at),
        "restart": lambda: _restart(instance, wanted, at),
        "terminate": lambda: instance.terminate(at, source=wanted.source, rollback=wanted.rollback),
        "event": lambda: instance.send_event(wanted.event_type, wanted.value, at),
        "status": lambda: instance.force_status(wanted.value, at),
        "delete": lambda: instance.delete(at),
        "result": lambda: setattr(instance, "result", wanted.value),
    }
    verbs[verb]()


def _restart(instance: Instance, wanted: Intervention, at: float) -> None:
    if not wanted.step:
        instance.restart(at, wanted.script)
        return
    try:
        instance.restart_from(wanted.step, wanted.number, wanted.type, at=at, script=wanted.script)
    except LookupError as error:
        raise ValueError(str(error)) from None


class Control:
    """The endpoints as functions from a request and its body to the result."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.world = simulator.world

    def credential(self, _: Request, body: bytes) -> None:
        msgspec.json.decode(body, type=NewCredential).add(self.simulator)

    def create(self, _: Request, body: bytes) -> dict[str, Any]:
        return {"id": msgspec.json.decode(body, type=NewInstance).add(self.simulator).id}

    def intervene(self, request: Request, body: bytes) -> None:
        account, workflow, instance_id, verb = request.path_params.values()
        self.world.settle()
        instance = self.world.accounts[account].workflows[workflow].instances[instance_id]
        wanted = msgspec.json.decode(body, type=Intervention)
        intervene(instance, verb, wanted, self.world.clock())

    def add_fault(self, _: Request, body: bytes) -> None:
        fault = msgspec.structs.asdict(msgspec.json.decode(body, type=NewFault))
        self.simulator.faults.add(fault.pop("action"), **fault)

    def clear_faults(self, _: Request, __: bytes) -> None:
        self.simulator.faults.clear()

    def release(self, _: Request, __: bytes) -> None:
        self.simulator.faults.release()

    def requests(self, _: Request, __: bytes) -> dict[str, Any]:
        log = self.simulator.requests
        return {
            "total": log.total,
            "by_kind": log.by_kind,
            "by_status": {f"{kind} {status}": n for (kind, status), n in log.by_status.items()},
            "most_in_flight": log.most_in_flight,
            "latest": log.latest[-100:],
        }

    def clear_requests(self, _: Request, __: bytes) -> None:
        self.simulator.requests.clear()

    def limit(self, _: Request, body: bytes) -> None:
        wanted = msgspec.json.decode(body, type=NewLimit)
        limit = self.simulator.limit
        limit.quota, limit.window, limit.lockout = wanted.quota, wanted.window, wanted.lockout

    def spend(self, _: Request, body: bytes) -> dict[str, int]:
        wanted = msgspec.json.decode(body, type=Spending)
        return {"accepted": self.simulator.limit.spend(wanted.requests, wanted.user)}

    def advance(self, _: Request, body: bytes) -> dict[str, float]:
        if not isinstance(self.world.clock, ManualClock):
            raise ValueError("only a manual clock can be advanced: start with --clock manual")
        self.world.clock.advance(msgspec.json.decode(body, type=Advance).seconds)
        return {"now": self.world.clock()}


def _route(path: str, method: str, act: Callable[[Request, bytes], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            result, status = act(request, await request.body() or b"{}"), 200
        except ValueError as error:
            result, status = {"error": str(error)}, 400
        except KeyError as error:
            result, status = {"error": f"there is no {error.args[0]!r}"}, 404
        body = msgspec.json.encode({} if result is None else result)
        return Response(body, status, media_type="application/json")

    return Route(path, endpoint, methods=[method])


def control_app(simulator: Simulator) -> Starlette:
    """The simulator with its control endpoints."""
    control = Control(simulator)
    routes = [
        _route("/credentials", "POST", control.credential),
        _route("/instances", "POST", control.create),
        _route("/instances/{account}/{workflow}/{instance}/{verb}", "POST", control.intervene),
        _route("/faults", "POST", control.add_fault),
        _route("/faults", "DELETE", control.clear_faults),
        _route("/faults/release", "POST", control.release),
        _route("/requests", "GET", control.requests),
        _route("/requests", "DELETE", control.clear_requests),
        _route("/limit", "PUT", control.limit),
        _route("/limit/spend", "POST", control.spend),
        _route("/clock/advance", "POST", control.advance),
    ]
    return Starlette(routes=[Mount("/_control", routes=routes), Mount("/", app=simulator)])
