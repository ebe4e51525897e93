"""A list is read to its end, or fails: a part of it is never taken for the whole."""

from collections.abc import Sequence

import pytest

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import PageInfo, Row
from exporter.cloudflare.pagination import Page, next_page, read_pages

PER_PAGE = 3


class Upstream:
    """A list of rows, of which each page is what `pages` says."""

    def __init__(self, *pages: tuple[str, PageInfo | None]) -> None:
        self.pages = list(pages)
        self.requests: list[str] = []

    async def fetch(self, parameters: dict[str, str]) -> Page[Row]:
        self.requests.append(parameters.get("cursor") or f"page {parameters.get('page', 1)}")
        ids, info = self.pages.pop(0)
        rows = [Row(id=one) for one in ids]
        return Page(rows, info, len(rows), full=len(rows) >= PER_PAGE)

    async def read(self, max_pages: int = 10) -> str:
        pages = read_pages(self.fetch, {}, key=lambda row: row.id, max_pages=max_pages)
        return "".join([str(row.id) async for rows in pages for row in rows])


def cursor(text: str, total: int | None = None) -> PageInfo:
    return PageInfo(cursor=text, total_count=total)


def page(number: int, of: int) -> PageInfo:
    return PageInfo(page=number, total_pages=of)


def total(rows: int) -> PageInfo:
    return PageInfo(total_count=rows)


@pytest.mark.parametrize(
    ("pages", "ids", "requests"),
    [
        ([("", None)], "", ["page 1"]),
        ([("ab", None)], "ab", ["page 1"]),
        ([("abc", None), ("d", None)], "abcd", ["page 1", "page 2"]),
        ([("abc", None), ("", None)], "abc", ["page 1", "page 2"]),
        ([("abc", cursor("x")), ("d", None)], "abcd", ["page 1", "x"]),
        (
            [("abc", cursor("x")), ("de", cursor("y")), ("", cursor("z"))],
            "abcde",
            ["page 1", *"xy"],
        ),
        ([("abc", page(1, 2)), ("d", page(2, 2))], "abcd", ["page 1", "page 2"]),
        ([("ab", page(1, 2)), ("cd", page(2, 2))], "abcd", ["page 1", "page 2"]),
        (
            [("ab", PageInfo(total_pages=2)), ("cd", PageInfo(total_pages=2))],
            "abcd",
            ["page 1", "page 2"],
        ),
        ([("ab", total(4)), ("cd", total(4))], "abcd", ["page 1", "page 2"]),
        ([("abc", total(0)), ("d", total(0))], "abcd", ["page 1", "page 2"]),
        ([("abc", total(2)), ("de", total(2))], "abcde", ["page 1", "page 2"]),
        ([("abc", total(4)), ("bc", total(4))], "abc", ["page 1", "page 2", "page 3"]),
    ],
    ids=[
        "empty",
        "one page",
        "a full page without a total",
        "the next page is empty",
        "cursors",
        "a cursor on the last page too",
        "page numbers",
        "shorter pages than requested, by number",
        "by the number of pages alone",
        "shorter pages than requested, by total",
        "a total of nothing",
        "a total that the first page exceeds",
        "moved by new rows",
    ],
)
async def test_it_is_read_to_its_end(
    pages: Sequence[tuple[str, PageInfo | None]], ids: str, requests: list[str]
) -> None:
    upstream = Upstream(*pages)
    if requests[-1] == "page 3":
        upstream.pages.append(("d", total(4)))
        ids += "d"
    assert (await upstream.read(), upstream.requests) == (ids, requests)


@pytest.mark.parametrize(
    ("pages", "error"),
    [
        ([("", total(4))], "the list ends after 0 of 4 rows"),
        ([("abc", total(7)), ("abc", total(7))], "the list ends after 3 of 7 rows"),
        ([("abc", None), ("abc", None)], "the list repeats after 3 rows"),
        ([("abc", cursor("x")), ("abc", cursor("x"))], "the list repeats after 3 rows"),
        ([("ab", cursor("x")), ("ab", cursor("y"))], "the list repeats after 2 rows"),
        ([("abc", cursor("x")), ("c", cursor("y"))], "the list repeats after 3 rows"),
        ([(one, cursor(one)) for one in "abcd"], "the list has more than 4 pages"),
    ],
    ids=[
        "no rows of a total",
        "a page again, short of the total",
        "a page again, without a total",
        "a cursor again",
        "a page again under a new cursor",
        "a part again, with a cursor",
        "no end",
    ],
)
async def test_one_that_is_not_whole_fails(
    pages: Sequence[tuple[str, PageInfo | None]], error: str
) -> None:
    with pytest.raises(RequestFailed) as caught:
        await Upstream(*pages).read(max_pages=4)
    assert (caught.value.reason, str(caught.value)) == ("invalid_answer", error)


@pytest.mark.parametrize(
    ("info", "parameters", "after"),
    [
        (None, {}, None),
        (PageInfo(), {}, None),
        (cursor("x"), {"page": "2"}, {"cursor": "x"}),
        (cursor("y"), {"cursor": "x"}, {"cursor": "y"}),
        (cursor(""), {"cursor": "x"}, None),
        (page(2, 3), {"page": "2"}, {"page": "3"}),
        (page(3, 3), {"page": "3"}, None),
        (page(2, 3), {"cursor": "x"}, {"page": "3"}),
        (PageInfo(total_pages=2), {}, {"page": "2"}),
        (PageInfo(total_pages=3), {"page": "2"}, {"page": "3"}),
        (PageInfo(total_pages=3), {"page": "3"}, None),
        (PageInfo(total_pages=3), {"cursor": "x"}, None),
        (PageInfo(page=2), {"page": "2"}, None),
    ],
)
def test_the_next_page(
    info: PageInfo | None, parameters: dict[str, str], after: dict[str, str] | None
) -> None:
    """It keeps what selects the list."""
    selected = {"per_page": "3", "status": "running"}
    expected = None if after is None else selected | after
    assert next_page(info, selected | parameters, sent=3) == expected
    assert next_page(info, selected | parameters, sent=0) is None
