"""What is known of one watched instance, and when to look at it."""

from math import inf

from exporter.cloudflare.errors import CallFailed
from exporter.cloudflare.models import ENDED
from exporter.watch.changes import LastLook
from exporter.watch.tracker import Figures, Run


class Instance:
    """One instance. Times are of the monotonic clock where nothing else is said.

    Attributes:
        configured: Listed in the configuration; others were discovered.
        shown: Has series; what no selector takes is only counted.
        since: Unix time; what ended before it is history and not counted.
        due: When to look at it; inf: when a list says that it moved.
        busy: A look waits for its turn or is under way.
        waits: How urgently, while a look waits for its turn.
        wants_detail: The next look is a full one, whatever a simple one would say.
        last_change: Unix time.
        looked_at: When a row or an answer last told of it.
        failure: Of the last look; None when it succeeded.
        not_found: Answers 404 in a row.
        forget_at: When its series and all that is known of it go, but what was counted.
        created: `created_on` of the last row, Unix time.
        modified: `modified_on` of the last row, Unix time.
        sweep: Number of the last sweep that held it.
    """

    __slots__ = (
        "busy",
        "configured",
        "created",
        "detailed_at",
        "due",
        "failure",
        "figures",
        "forget_at",
        "id",
        "last_change",
        "looked_at",
        "looks",
        "modified",
        "not_found",
        "row_status",
        "run",
        "shown",
        "since",
        "stale_since",
        "sweep",
        "tried",
        "waits",
        "wants_detail",
    )

    def __init__(
        self, instance_id: str, *, configured: bool, since: float, due: float = inf
    ) -> None:
        self.id = instance_id
        self.configured = configured
        self.shown = True
        self.since = since
        self.due = due
        self.busy = False
        self.tried = False
        self.waits: int | None = None
        self.wants_detail = False
        self.run: Run | None = None
        self.figures: Figures | None = None
        self.looks = LastLook()
        self.last_change = 0.0
        self.looked_at = -inf
        self.detailed_at = -inf
        self.failure: CallFailed | None = None
        self.not_found = 0
        self.forget_at: float | None = None
        self.stale_since: float | None = None
        self.created: float | None = None
        self.modified: float | None = None
        self.row_status: str | None = None
        self.sweep = 0

    @property
    def seen(self) -> bool:
        return self.figures is not None

    @property
    def live(self) -> bool:
        return self.run is not None and self.run.status not in ENDED
