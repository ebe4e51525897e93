"""Reads a list of the API page by page to its end, and fails if the list isn't whole."""

from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Generic, NamedTuple, TypeVar

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import PageInfo

T = TypeVar("T")

PAGE_SIZE = 100
"""The most rows of a page that the API sends."""
_ADVICE = "check api.url, and proxies that change responses"


class Page(NamedTuple, Generic[T]):
    """A page of a list."""

    rows: list[T]
    info: PageInfo | None = None
    sent: int = 0
    """Rows of the page, invalid ones included."""
    full: bool = False
    """Whether it has as many rows as were requested."""


def next_page(
    info: PageInfo | None, parameters: dict[str, str], sent: int
) -> dict[str, str] | None:
    """The parameters of the page after one with this `result_info`; None: the API names none."""
    # `cursor` and `page` exclude each other.
    base = {key: value for key, value in parameters.items() if key not in ("cursor", "page")}
    if info is None or not sent:
        return None
    if info.cursor:
        return {**base, "cursor": info.cursor}
    # Where pages go by cursors, one without a number is the last.
    page = info.page or (0 if "cursor" in parameters else int(parameters.get("page", 1)))
    if page and info.total_pages and page < info.total_pages:
        return {**base, "page": str(page + 1)}
    return None


async def read_pages(
    fetch: Callable[[dict[str, str]], Awaitable[Page[T]]],
    parameters: dict[str, str],
    *,
    key: Callable[[T], str | None],
    max_pages: int,
) -> AsyncIterator[list[T]]:
    """The rows of each page that no page before had, until the API says that the list ends.

    Args:
        fetch: Requests the page with these parameters.
        parameters: Of the first page.
        key: What identifies a row.
        max_pages: If the list has more pages, it is taken to have no end.

    Raises:
        RequestFailed: a page can't be read, or the list isn't whole: it ends before its total,
            repeats, or has no end.
    """
    request, seen = parameters, set[str | None]()
    with_new, largest, total = 0, 0, inf
    for number in range(1, max_pages + 1):
        page = await fetch(request)
        new = [row for row in page.rows if key(row) not in seen]
        seen.update(map(key, new))
        yield new
        with_new, largest = with_new + bool(new), max(largest, page.sent)
        following = next_page(page.info, request, page.sent)
        # Rows come and go while pages are read, so pages are counted, against the smallest total.
        # A total below the rows of its own page is none.
        reported = page.info.total_count if page.info else None
        if reported is not None and reported >= page.sent:
            total = min(total, reported)
        short = total < inf and with_new * largest < total
        # New rows may have moved known ones to the last page, which is shorter than the others.
        moved = 0 < page.sent < largest and following is None
        if not new and not moved and (short or page.rows):
            what = f"ends after {len(seen)} of {total}" if short else f"repeats after {len(seen)}"
            raise RequestFailed("invalid_answer", f"the list {what} rows", _ADVICE)
        if following is not None:
            request = following
        elif short or (page.full and total == inf):
            request = {**parameters, "page": str(number + 1)}
        else:
            return
    raise RequestFailed("invalid_answer", f"the list has more than {max_pages} pages", _ADVICE)
