"""The pages for people: `/` lists all instances in a table, `/instance` shows one in detail.

They show what the exporter already knows. The table is rendered in a thread, one request at a time,
so that polls and scrapes continue whatever the number of instances and requests.
"""

import asyncio
from collections.abc import Iterator

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from exporter import __version__
from exporter.instances.timeline import Entry
from exporter.web.page import formatting
from exporter.web.page.instance_table import COLUMNS, MAX_LENGTH, TableQuery, select
from exporter.web.page.view import Explanation, Snapshot, WatchView

_HEADERS = {
    # Only the exporter's own files: no name of an instance can load or run anything.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    # Names of customers' instances must not stay in a cache.
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Pages:
    """The pages of an exporter.

    Args:
        view: What they show.
    """

    def __init__(self, view: WatchView) -> None:
        self._view = view
        self._one_at_a_time = asyncio.Lock()
        self._templates = Environment(
            loader=PackageLoader("exporter.web.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for name in ("span", "ago", "utc", "iso", "count", "overdue", "instance_href"):
            self._templates.filters[name] = getattr(formatting, name)
        # Part of the addresses of static files, so that no cache has those of another version.
        self._templates.globals["version"] = __version__
        self.routes = (
            Route("/", self._table),
            Route("/instance", self._instance),
            Mount("/assets", StaticFiles(packages=[("exporter.web.page", "assets")])),
        )
        """The pages and their static files."""

    async def _table(self, request: Request) -> Response:
        query = TableQuery.read(request.query_params)
        async with self._one_at_a_time:
            page = await asyncio.to_thread(self.table, self._view.snapshot(), query)
        return HTMLResponse(page, headers=_HEADERS)

    async def _instance(self, request: Request) -> Response:
        name = [request.query_params.get(key, "") for key in ("account", "workflow", "id")]
        known = self._view.explain(*name)
        if known is None:
            page = self._templates.get_template("unknown.html").render(id=name[2])
            return HTMLResponse(page, 404, headers=_HEADERS)
        return HTMLResponse(self.instance(known), headers=_HEADERS)

    def table(self, snapshot: Snapshot, query: TableQuery) -> str:
        """Renders the table."""
        return self._templates.get_template("instances.html").render(
            accounts=snapshot.accounts,
            state_problem=snapshot.state_problem,
            workflows=sorted({w.name for account in snapshot.accounts for w in account.workflows}),
            columns={
                name: column
                for name, column in COLUMNS.items()
                if name != "account" or len(snapshot.accounts) > 1
            },
            max_length=MAX_LENGTH,
            now=snapshot.now.unix,
            query=query,
            picked=select(snapshot.rows(), query),
        )

    def instance(self, known: Explanation) -> str:
        """Renders the page of one instance."""
        return self._templates.get_template("instance.html").render(
            **known._asdict(),
            bars=list(_bars(known)),
            dashboard=formatting.dashboard_href(known),
            queries=formatting.queries(known.row),
        )


def _bars(known: Explanation) -> Iterator[tuple[Entry, float, float]]:
    """Each step with its bar on the timeline: left edge and width, as percentages of the run."""
    entries = known.timeline.entries if known.timeline else ()
    spans = [_span(entry, known.now) for entry in entries]
    first = min((start for start, _ in spans), default=0.0)
    whole = max([0.001, *(end - first for _, end in spans)])
    for entry, (start, end) in zip(entries, spans, strict=True):
        left, width = (start - first) / whole, (end - start) / whole
        yield entry, round(left * 100, 2), round(width * 100, 2)


def _span(entry: Entry, now: float) -> tuple[float, float]:
    """When a step's bar begins and ends; that of an open step ends now."""
    end = now if entry.outcome == "running" or entry.end is None else entry.end
    return end if entry.start is None else min(entry.start, end), end
