"""The requests that arrived at the socket: the latest ones, and exact counts."""

from collections import Counter, deque
from threading import Lock

from msgspec import Struct


class ApiRequest(Struct):
    """One request. `status` is 0 until the response begins, and stays so without one.

    `kind` is simple, detail, list, workflow, workflows, versions, accounts, queue, pull, ack or
    other; `fault` names
    the action of the fault rule that took it.
    """

    time: float
    method: str
    path: str
    query: str
    account: str = ""
    workflow: str = ""
    instance: str = ""
    queue: str = ""
    kind: str = "other"
    status: int = 0
    user: str = ""
    fault: str = ""


class RequestLog:
    """The latest requests, at most `size`, and counters over all. Any thread may read them."""

    def __init__(self, size: int = 20_000) -> None:
        self._latest: deque[ApiRequest] = deque(maxlen=size)
        self._lock = Lock()
        self.in_flight: Counter[str] = Counter()
        """Requests without a complete response, by path."""
        self.clear()

    def clear(self) -> None:
        """Resets the counters; requests in flight stay."""
        with self._lock:
            self._latest.clear()
        self.total = 0
        self.by_kind: Counter[str] = Counter()
        self.by_status: Counter[tuple[str, int]] = Counter()
        """Ended requests by kind and status."""
        self.most_in_flight = 0
        """The most requests in flight at once."""
        self.most_in_flight_of_one = 0
        """The most in flight at once for one path, whatever their query."""

    def begin(self, request: ApiRequest) -> None:
        with self._lock:
            self._latest.append(request)
        self.total += 1
        self.by_kind[request.kind] += 1
        self.in_flight[request.path] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight.total())
        of_one = self.in_flight[request.path]
        self.most_in_flight_of_one = max(self.most_in_flight_of_one, of_one)

    def end(self, request: ApiRequest) -> None:
        self.by_status[request.kind, request.status] += 1
        self.in_flight[request.path] -= 1
        if not self.in_flight[request.path]:
            del self.in_flight[request.path]

    @property
    def latest(self) -> list[ApiRequest]:
        """The latest requests, oldest first."""
        with self._lock:
            return list(self._latest)

    def of(
        self, kind: str | None = None, instance: str | None = None, workflow: str | None = None
    ) -> list[ApiRequest]:
        """The latest requests that match, oldest first."""
        return [
            request
            for request in self.latest
            if kind in {None, request.kind}
            and instance in {None, request.instance}
            and workflow in {None, request.workflow}
        ]
