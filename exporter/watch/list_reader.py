"""Reads the lists of one workflow's instances page by page, while the instances change."""

from collections.abc import Awaitable, Callable

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row
from exporter.cloudflare.pagination import PAGE_SIZE, Page, read_pages
from exporter.instances.urgency import Urgency
from exporter.watch.poller import Poller

_SIZES = (PAGE_SIZE, 50, 25, 10)
"""How many rows to request; less where the API refuses more."""
_MAX_PAGES = 50_000
"""Maximum pages of a list: more than the platform's limit on instances allows."""


class ListReader:
    """The lists of one workflow.

    Args:
        poller: The poller of its instances.
        take: Called with the rows of each page; each row of a list comes once.
    """

    def __init__(self, poller: Poller, take: Callable[[list[Row]], Awaitable[None]]) -> None:
        self._store, self._clock = poller.watched.store, poller.watched.clock
        self.progress_at = self._clock.monotonic()
        """When a page was last requested (monotonic clock)."""
        self.refused_statuses: set[str] = set()
        """Statuses that the API refuses to list, although instances may have them."""
        self._poller = poller
        self._take = take
        self._size = 0
        """The place in `_SIZES` of the rows to request."""

    async def read(self, parameters: dict[str, str], *, again: bool = True) -> RequestFailed | None:
        """Reads one list to its end. Returns the failure if a page can't be read, or the list isn't
        whole; the rows before that are taken all the same."""
        found = read_pages(self._page, parameters, key=lambda row: row.id, max_pages=_MAX_PAGES)
        begun = False
        try:
            async for rows in found:
                begun = True
                await self._take(rows)
        except RequestFailed as failure:
            if begun and again and failure.reason == "http_4xx":
                # The cursor may have expired: begin again, once.
                return await self.read(parameters, again=False)
            return failure
        return None

    async def _page(self, parameters: dict[str, str]) -> Page[Row]:
        while not self._poller.watched.detached:
            await self._poller.queue.turn(Urgency.PAGE)
            size = {"per_page": str(_SIZES[self._size])}
            try:
                with self._store.poll("list"):
                    return await self._poller.client.instances(
                        self._poller.key.workflow, {**parameters, **size}
                    )
            except RequestFailed as failure:
                refused = str(failure) if failure.reason == "http_4xx" else ""
                if "per_page" in refused and self._size + 1 < len(_SIZES):
                    self._size += 1
                elif "status:" in refused and "status" in parameters:
                    self.refused_statuses.add(parameters["status"])
                    return Page([])
                else:
                    raise
            finally:
                self.progress_at = self._clock.monotonic()
        return Page([])  # whatever that list shows no longer matters
