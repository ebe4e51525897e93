"""A record of the calls that arrived at the socket."""

from collections import Counter, deque

from msgspec import Struct


class Call(Struct):
    """One call. `status` is 0 until it is answered, and stays so when it never is.

    `kind` is simple, detail, list, workflow, workflows, versions, accounts or other; `fault` names
    the action that a fault rule took.
    """

    time: float
    method: str
    path: str
    query: str
    account: str = ""
    workflow: str = ""
    instance: str = ""
    kind: str = "other"
    status: int = 0
    user: str = ""
    fault: str = ""


class CallLog:
    """The latest calls, and exact counters over all of them."""

    def __init__(self, size: int = 20_000) -> None:
        self.latest: deque[Call] = deque(maxlen=size)
        self.open: Counter[str] = Counter()
        """Calls being answered now, by path."""
        self.clear()

    def clear(self) -> None:
        """Start counting anew; calls that are open stay open."""
        self.latest.clear()
        self.total = 0
        self.by_kind: Counter[str] = Counter()
        self.by_status: Counter[tuple[str, int]] = Counter()
        """Answered calls by kind and status."""
        self.most_open = 0
        """The most calls that were being answered at once."""
        self.most_open_of_one = 0
        """The most that were for one path at once, whatever their query."""

    def begin(self, call: Call) -> None:
        self.latest.append(call)
        self.total += 1
        self.by_kind[call.kind] += 1
        self.open[call.path] += 1
        self.most_open = max(self.most_open, self.open.total())
        self.most_open_of_one = max(self.most_open_of_one, self.open[call.path])

    def end(self, call: Call) -> None:
        self.by_status[call.kind, call.status] += 1
        self.open[call.path] -= 1
        if not self.open[call.path]:
            del self.open[call.path]

    def of(
        self, kind: str | None = None, instance: str | None = None, workflow: str | None = None
    ) -> list[Call]:
        """The latest calls that match, oldest first."""
        return [
            call
            for call in self.latest
            if kind in {None, call.kind}
            and instance in {None, call.instance}
            and workflow in {None, call.workflow}
        ]
