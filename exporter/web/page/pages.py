"""The pages: `/`, every instance in a table, and `/instance`, all that is known of one.

They read what the watch has ready, and are made in a thread, one at a time: however many instances
there are, and however often somebody asks, rounds and scrapes go on.
"""

import asyncio
from collections.abc import Iterator

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from exporter import __version__
from exporter.watch.step_timeline import Entry
from exporter.web.headers import PAGE_HEADERS
from exporter.web.page import formatting
from exporter.web.page.assets import Assets
from exporter.web.page.instance_table import COLUMNS, LONGEST, TableQuery, select
from exporter.web.page.view import Explanation, Snapshot, WatchView


class Pages:
    """The pages of an exporter."""

    def __init__(self, overview: WatchView) -> None:
        self._overview = overview
        self._assets = Assets()
        self._one_at_a_time = asyncio.Lock()
        self._templates = Environment(
            loader=PackageLoader("exporter.web.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "span": formatting.span,
            "ago": formatting.ago,
            "utc": formatting.utc,
            "iso": formatting.iso,
            "instance_href": formatting.instance_href,
        }
        self._templates.globals |= {"version": __version__, "assets": self._assets.hrefs}

    @property
    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/", self._table),
            Route("/instance", self._instance),
            Route("/assets/{name}", self._assets.answer),
        ]

    async def _table(self, request: Request) -> Response:
        query = TableQuery.read(request.query_params)
        async with self._one_at_a_time:
            page = await asyncio.to_thread(self.table, self._overview.snapshot(), query)
        return HTMLResponse(page, headers=PAGE_HEADERS)

    async def _instance(self, request: Request) -> Response:
        name = [request.query_params.get(key, "") for key in ("account", "workflow", "id")]
        known, now = self._overview.explain(*name), self._overview.snapshot().wall
        if known is None:
            page = self._templates.get_template("unknown.html").render(id=name[2])
            return HTMLResponse(page, 404, headers=PAGE_HEADERS)
        return HTMLResponse(self.instance(known, now), headers=PAGE_HEADERS)

    def table(self, now: Snapshot, query: TableQuery) -> str:
        """The page of the table."""
        return self._templates.get_template("instances.html").render(
            accounts=now.accounts,
            workflows=sorted({w.name for account in now.accounts for w in account.workflows}),
            columns={
                name: column
                for name, column in COLUMNS.items()
                if name != "account" or len(now.accounts) > 1
            },
            longest=LONGEST,
            now=now.wall,
            query=query,
            picked=select(now.rows(), query),
        )

    def instance(self, known: Explanation, now: float) -> str:
        """The page of one instance."""
        return self._templates.get_template("instance.html").render(
            bars=list(_bars(known, now)),
            changes=formatting.changed(known),
            dashboard=formatting.dashboard_href(known),
            known=known,
            now=now,
            queries=formatting.queries(known.row),
            row=known.row,
        )


def _bars(known: Explanation, now: float) -> Iterator[tuple[Entry, float, float]]:
    """Steps, and where in the run's time each begins and how long it takes, in per cent."""
    entries = known.timeline.entries if known.timeline else ()
    starts = [entry.start for entry in entries if entry.start is not None]
    ends = [_end(entry, now) for entry in entries]
    first, last = min(starts, default=now), max(ends, default=now)
    whole = max(last - first, 0.001)
    for entry, end in zip(entries, ends, strict=True):
        start = entry.start if entry.start is not None else end
        left = (start - first) / whole * 100
        yield entry, round(left, 2), round(max(0.0, end - start) / whole * 100, 2)


def _end(entry: Entry, now: float) -> float:
    """The end of a step's bar: of an open one, now."""
    return now if entry.outcome == "running" or entry.end is None else entry.end
