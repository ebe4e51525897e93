"""Reads lists of one workflow's instances, page by page, whatever changes meanwhile."""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol

from exporter.clock import Clock
from exporter.cloudflare.client import Page
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row
from exporter.watch.sink import Sink

_PER_PAGE = (100, 50, 25, 10)
# What a list may take: the platform's own limit on instances, with room; one without end ends.
_MOST_PAGES = 50_000


class Lister(Protocol):
    """The request for a page; it raises `RequestFailed`."""

    async def instances(self, workflow: str, parameters: dict[str, str]) -> Page: ...


class ListReader:
    """The lists of one workflow.

    Args:
        workflow: Its name.
        lister: Makes the requests.
        turn: Waits for a page's turn at the budget.
        take: Gets each row, once a list.
        over: Whether the workflow was detached.
    """

    def __init__(
        self,
        workflow: str,
        lister: Lister,
        *,
        turn: Callable[[], Awaitable[None]],
        take: Callable[[Row], None],
        over: Callable[[], bool],
        sink: Sink,
        clock: Clock,
    ) -> None:
        self.lister = lister
        self.progress = clock.monotonic()
        """When a page was last read, or refused (monotonic clock)."""
        self.refused_statuses: set[str] = set()
        """Statuses that rows may have and lists can't be asked for."""
        self._workflow = workflow
        self._turn = turn
        self._take = take
        self._over = over
        self._sink = sink
        self._clock = clock
        self._size = 0

    async def read(self, parameters: dict[str, str], *, again: bool = True) -> int:
        """Reads one list to its end; the number of pages.

        Raises:
            RequestFailed: a page can't be read, or the list ends before its given total;
                the rows until then were taken.
        """
        more: dict[str, str] | None = parameters
        pages, full, most, total = 0, 0, 0, inf
        seen: set[str | None] = set()
        while more is not None and pages < _MOST_PAGES and not self._over():
            try:
                page = await self._page(more)
            except RequestFailed as failure:
                if pages and again and failure.reason == "http_4xx":
                    # The cursor has expired, perhaps: from the start, once.
                    return pages + await self.read(parameters, again=False)
                raise
            new = [row for row in page.rows if row.id not in seen]
            seen.update(row.id for row in new)
            for row in new:
                self._take(row)
            pages, full, most = pages + 1, full + bool(new), max(most, page.sent)
            # Instances come and go while pages are read, so pages are counted, against the least
            # that the list is said to hold.
            total = min(total, inf if page.total is None else page.total)
            short = total < inf and full * most < total
            # Where new instances have moved the others on, the last page holds known ones alone.
            last = pages > 1 and 0 < page.sent < most
            if short and not new and not last:
                raise RequestFailed(
                    "invalid_answer",
                    f"the list ends after {len(seen)} of {total} instances",
                    "check api.url, and proxies that change responses",
                )
            # A page that brings nothing new would be followed by others like it, without end.
            more = page.next if new else None
            # Where no total is given, a full page may not be the last.
            full_page = total == inf and page.sent >= _PER_PAGE[self._size]
            if more is None and (short or (new and full_page)):
                more = {**parameters, "page": str(pages + 1)}
        return pages

    async def _page(self, parameters: dict[str, str]) -> Page:
        while True:
            await self._turn()
            size = {"per_page": str(_PER_PAGE[self._size])}
            try:
                page = await self.lister.instances(self._workflow, {**parameters, **size})
            except RequestFailed as failure:
                self.progress = self._clock.monotonic()
                self._sink.polled("list", failure.reason)
                smaller = self._size + 1 < len(_PER_PAGE)
                if failure.reason == "http_4xx" and "per_page" in str(failure) and smaller:
                    self._size += 1
                    continue
                status = parameters.get("status", "")
                if failure.reason == "http_4xx" and "status:" in str(failure) and status:
                    self.refused_statuses.add(status)
                    return Page([], None)
                raise
            self.progress = self._clock.monotonic()
            self._sink.polled("list", "success")
            return page
