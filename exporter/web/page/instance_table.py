"""The table of instances: how the query parameters filter, sort and page its rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from exporter.config.accounts import LONGEST_ID
from exporter.statuses import ENDED_WITHOUT_ERROR
from exporter.web.page.view import ATTENTION, TableRow

PER_PAGE = 200
MAX_LENGTH = LONGEST_ID
"""Maximum characters of a parameter; further ones are ignored."""
_RANKS = {word: rank for rank, word in enumerate(ATTENTION)}


def _attention(row: TableRow) -> int:
    """Errored first, complete and terminated last."""
    return _RANKS.get(row.attention, len(ATTENTION) + (row.status in ENDED_WITHOUT_ERROR))


class TableColumn(NamedTuple):
    """A column by which rows can be sorted."""

    heading: str
    key: Callable[[TableRow], str | float | None]
    order: str = "asc"
    """The order when it is sorted for the first time."""


COLUMNS = {
    "account": TableColumn("Account", lambda row: row.account.casefold()),
    "status": TableColumn("Status", lambda row: row.status.casefold()),
    "workflow": TableColumn("Workflow", lambda row: row.workflow.casefold()),
    "instance": TableColumn("Instance", lambda row: row.id.casefold()),
    "step": TableColumn("Current step", lambda row: row.step.casefold() or None),
    "attempts": TableColumn("Attempts", lambda row: row.attempts, "desc"),
    "running": TableColumn("Run time", lambda row: row.running, "desc"),
    "changed": TableColumn("Last change", lambda row: row.changed, "desc"),
    "checked": TableColumn("Last poll", lambda row: row.checked_at, "desc"),
    "due": TableColumn("Next poll", lambda row: row.due),
}


class TableQuery(NamedTuple):
    """What the table shows, by the parameters of its address. An empty parameter excludes nothing.
    If `sort` is empty, what needs attention comes first."""

    q: str = ""
    """Text to search for."""
    account: str = ""
    workflow: str = ""
    status: str = ""
    """A status, or one of `ATTENTION`."""
    sort: str = ""
    order: str = ""
    """`asc` or `desc`; empty without `sort`."""
    page: int = 1

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> "TableQuery":
        """The query of an address; invalid parameters are ignored."""
        given = {name: parameters.get(name, "")[:MAX_LENGTH] for name in cls._fields}
        given["q"], page = given["q"].strip(), given.pop("page")
        column = COLUMNS.get(given["sort"])
        if column is None:
            given["sort"] = given["order"] = ""
        elif given["order"] not in ("asc", "desc"):
            given["order"] = column.order
        number = int(page) if page.isascii() and page.isdigit() and len(page) < 9 else 1
        return cls(**given, page=max(1, number))

    def href(self, **changes: object) -> str:
        """The address of this query with changes, relative to the page. It begins at page 1 unless
        the changes name another."""
        new = self._replace(**{"page": 1, **changes})._asdict()  # type: ignore[arg-type]
        given = {n: value for n, value in new.items() if value != self._field_defaults[n]}
        return "?" + urlencode(given)

    def by(self, column: str) -> str:
        """The address that sorts by a column; reverses the order of the current one."""
        order = COLUMNS[column].order
        if self.sort == column:
            order = "asc" if self.order == "desc" else "desc"
        return self.href(sort=column, order=order)


class TablePage(NamedTuple):
    """The rows of one page, and counts over all rows that match."""

    rows: list[TableRow]
    total: int
    """Rows on all pages."""
    first: int
    """Number of the page's first row, from 1."""
    page: int
    pages: int
    counts: list[tuple[str, int]]
    """Instances by `ATTENTION` and by status, whatever status the query selects."""
    everything: int
    """Instances in any status."""


def select(rows: Iterable[TableRow], query: TableQuery) -> TablePage:
    """Filters and sorts rows, and returns one page; past the end, the last page."""
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


def _matches(row: TableRow, query: TableQuery) -> bool:
    if query.account not in ("", row.account) or query.workflow not in ("", row.workflow):
        return False
    words = f"{row.id}\n{row.workflow}\n{row.step}\n{row.error}"
    return not query.q or query.q.casefold() in words.casefold()


def _sorted(rows: list[TableRow], query: TableQuery) -> list[TableRow]:
    if not query.sort:
        # Three sorts by one number or text each block other threads less than one by tuples.
        rows = sorted(rows, key=lambda row: row.id)
        rows.sort(key=lambda row: row.changed or 0.0, reverse=True)
        rows.sort(key=_attention)
        return rows
    key = COLUMNS[query.sort].key
    known = [row for row in rows if key(row) is not None]
    # Unknown values come last in either order.
    return sorted(known, key=key, reverse=query.order == "desc") + [  # type: ignore[arg-type]
        row for row in rows if key(row) is None
    ]
