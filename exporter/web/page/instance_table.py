"""What of the table a person asks for: the query parameters, and the rows they pick."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from exporter.config.accounts import LONGEST_ID
from exporter.web.page.view import ATTENTION, InstanceRow

PER_PAGE = 200
LONGEST = LONGEST_ID
"""Characters of a parameter that are read."""
_RANKS = {word: rank for rank, word in enumerate(ATTENTION)}
_ENDED = frozenset({"complete", "terminated"})


def _attention(row: InstanceRow) -> int:
    """Errored first, what has ended well last."""
    return _RANKS.get(row.attention, len(ATTENTION) + (row.status in _ENDED))


class TableColumn(NamedTuple):
    """A column by which rows can be sorted."""

    heading: str
    key: Callable[[InstanceRow], str | float | None]
    falling: bool = False
    """Whether the largest come first, unless asked otherwise."""


COLUMNS = {
    "account": TableColumn("Account", lambda row: row.account.casefold()),
    "status": TableColumn("Status", lambda row: row.status.casefold()),
    "workflow": TableColumn("Workflow", lambda row: row.workflow.casefold()),
    "instance": TableColumn("Instance", lambda row: row.id.casefold()),
    "step": TableColumn("Step now", lambda row: row.step.casefold() or None),
    "attempts": TableColumn("Attempts", lambda row: row.attempts, falling=True),
    "running": TableColumn("Running for", lambda row: row.running, falling=True),
    "changed": TableColumn("Last change", lambda row: row.changed, falling=True),
    "looked": TableColumn("Last look", lambda row: row.checked_at, falling=True),
    "due": TableColumn("Next look", lambda row: row.due),
}


class TableQuery(NamedTuple):
    """A view of the table. Empty: everything; `sort` empty: what needs attention first."""

    text: str = ""
    account: str = ""
    workflow: str = ""
    status: str = ""
    """A status, or one of `ATTENTION`."""
    sort: str = ""
    falling: bool = False
    page: int = 1

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> "TableQuery":
        """The query of an address; what makes no sense is left out."""
        sort = parameters.get("sort", "")
        sort = sort if sort in COLUMNS else ""
        orders = {"asc": False, "desc": True}
        page = parameters.get("page", "")
        return cls(
            text=parameters.get("q", "").strip()[:LONGEST],
            account=parameters.get("account", "")[:LONGEST],
            workflow=parameters.get("workflow", "")[:LONGEST],
            status=parameters.get("status", "")[:LONGEST],
            sort=sort,
            falling=orders.get(
                parameters.get("order", ""), COLUMNS[sort].falling if sort else False
            ),
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
        )

    def href(self, **changes: object) -> str:
        """The address, relative to the page itself, of this view with changes; of page 1 then."""
        new = self._replace(**{"page": 1, **changes})  # type: ignore[arg-type]
        parameters = {
            "q": new.text,
            "account": new.account,
            "workflow": new.workflow,
            "status": new.status,
            "sort": new.sort,
            "order": ("desc" if new.falling else "asc") if new.sort else "",
            "page": str(new.page) if new.page > 1 else "",
        }
        return "?" + urlencode({name: value for name, value in parameters.items() if value})

    def by(self, column: str) -> str:
        """The address that sorts by a column; by one that is sorted by, the other way round."""
        falling = not self.falling if self.sort == column else COLUMNS[column].falling
        return self.href(sort=column, falling=falling)


class TablePage(NamedTuple):
    """What a query picks."""

    rows: list[InstanceRow]
    """Those of the page."""
    total: int
    """On all pages."""
    first: int
    """The number of the first row of the page, from 1."""
    page: int
    pages: int
    counts: list[tuple[str, int]]
    """How many there are of what needs attention and of each status, whatever status is asked
    for."""
    everything: int
    """How many there are in any status."""


def select(rows: Iterable[InstanceRow], query: TableQuery) -> TablePage:
    """Filters, sorts and cuts into pages; a page past the last is the last."""
    matching = [row for row in rows if _matches(row, query)]
    flags = Counter(row.attention for row in matching if row.attention)
    statuses = Counter(row.status for row in matching if row.status != row.attention)
    counts = [(word, flags[word]) for word in ATTENTION if flags[word]]
    counts += sorted(statuses.items(), key=lambda item: (-item[1], item[0]))
    picked = [row for row in matching if query.status in ("", row.status, row.attention)]
    pages = max(1, -(-len(picked) // PER_PAGE))
    page = min(query.page, pages)
    start = (page - 1) * PER_PAGE
    return TablePage(
        _sorted(picked, query)[start : start + PER_PAGE],
        total=len(picked),
        first=start + 1 if picked else 0,
        page=page,
        pages=pages,
        counts=counts,
        everything=len(matching),
    )


def _matches(row: InstanceRow, query: TableQuery) -> bool:
    if query.account not in ("", row.account) or query.workflow not in ("", row.workflow):
        return False
    if not query.text:
        return True
    words = f"{row.id}\n{row.workflow}\n{row.step}\n{row.error}".casefold()
    return query.text.casefold() in words


def _sorted(rows: list[InstanceRow], query: TableQuery) -> list[InstanceRow]:
    if not query.sort:
        # Three sorts by one number or text each hold up other threads less than one by tuples.
        rows = sorted(rows, key=lambda row: row.id)
        rows.sort(key=lambda row: row.changed or 0.0, reverse=True)
        rows.sort(key=_attention)
        return rows
    key = COLUMNS[query.sort].key
    known = [row for row in rows if key(row) is not None]
    # What isn't known comes last, whichever way round.
    return sorted(known, key=key, reverse=query.falling) + [  # type: ignore[arg-type]
        row for row in rows if key(row) is None
    ]
