"""What the table shows: search, filters, order and pages."""

from collections import Counter
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.page.instance_table import COLUMNS, PER_PAGE, TableQuery, select
from exporter.web.page.view import ATTENTION, TableRow


def row(id_: str = "a", **fields: object) -> TableRow:
    plain: dict[str, object] = {
        "account": "acc",
        "workflow": "orders",
        "status": "running",
        "attention": "",
        "error": "",
        "step": "",
        "more_steps": 0,
        "attempts": None,
        "running": None,
        "changed": None,
        "checked_at": None,
        "due": None,
    }
    return TableRow(**{**plain, **fields, "id": id_})  # type: ignore[arg-type]


def read(address: str) -> TableQuery:
    return TableQuery.read(dict(parse_qsl(address.removeprefix("?"))))


def ids(rows: list[TableRow], query: TableQuery) -> str:
    return " ".join(row.id for row in select(rows, query).rows)


numbers = st.none() | st.floats(0, 1e9)
rows = st.lists(
    st.builds(
        row,
        st.text(max_size=5),
        status=st.sampled_from(["running", "errored", "complete", "new"]),
        attention=st.sampled_from(["", *ATTENTION]),
        step=st.sampled_from(["", "pay-1", "Ship-1"]),
        attempts=st.none() | st.integers(0, 50),
        running=numbers,
        changed=numbers,
        checked_at=numbers,
        due=numbers,
    ),
    max_size=40,
)
queries = st.builds(
    TableQuery,
    q=st.text(max_size=3).map(str.strip),
    status=st.sampled_from(["", "running", "stuck", "none such"]),
    sort=st.sampled_from(["", *COLUMNS]),
    order=st.sampled_from(("asc", "desc")),
    page=st.integers(1, 10**6),
).map(lambda query: query if query.sort else query._replace(order=""))


class TestOrder:
    def test_what_needs_attention_comes_first_and_what_ended_well_last(self) -> None:
        unordered = [
            row("done", status="complete"),
            row("live"),
            row("retrying", attention="retrying"),
            row("failing", attention="failing"),
            row("stuck", attention="stuck"),
            row("errored", status="errored", attention="errored"),
        ]
        assert ids(unordered, TableQuery()) == "errored stuck failing retrying live done"

    def test_the_latest_change_first_among_equals(self) -> None:
        unordered = [row("b", changed=1.0), row("a"), row("d", changed=2.0), row("c", changed=2.0)]
        assert ids(unordered, TableQuery()) == "c d b a"

    @pytest.mark.parametrize(
        ("address", "order"),
        [
            ("?sort=attempts&order=desc", "b a c"),
            ("?sort=attempts&order=asc", "a b c"),
            ("?sort=attempts", "b a c"),
            ("?sort=instance", "a b c"),
            ("?sort=instance&order=desc", "c b a"),
        ],
    )
    def test_by_a_column_with_the_unknown_last(self, address: str, order: str) -> None:
        unordered = [row("b", attempts=9), row("c"), row("a", attempts=2)]
        assert ids(unordered, read(address)) == order

    def test_a_column_asked_for_again_turns_round(self) -> None:
        once = read(TableQuery().by("due"))
        assert (once.sort, once.order) == ("due", "asc")
        assert read(once.by("due")).order == "desc"
        assert read(once.by("attempts")).order == "desc"  # largest first

    @pytest.mark.slow
    @given(rows, queries)
    def test_every_order_shows_the_same_rows(self, rows: list[TableRow], query: TableQuery) -> None:
        other = query._replace(sort="", order="")
        assert Counter(select(rows, query).rows) == Counter(select(rows, other).rows)


class TestFilters:
    ROWS = (
        row("order-1", step="charge-1", error="PaymentDeclined", status="errored"),
        row("order-2", workflow="billing", attention="stuck"),
        row("invoice", account="other"),
    )

    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("", "order-2 invoice order-1"),
            ("?q=ORDER-", "order-2 order-1"),
            ("?q=bill", "order-2"),
            ("?q=charge", "order-1"),
            ("?q=declined", "order-1"),
            ("?q=nothing", ""),
            ("?q=order-1%0Aorders", "order-1"),
            ("?workflow=billing", "order-2"),
            ("?account=other", "invoice"),
            ("?status=errored", "order-1"),
            ("?status=running", "order-2 invoice"),
            ("?status=stuck", "order-2"),
            ("?status=none", ""),
        ],
    )
    def test_by(self, address: str, found: str) -> None:
        assert ids(list(self.ROWS), read(address)) == found

    def test_counts_show_what_other_statuses_would_show(self) -> None:
        picked = select(self.ROWS, TableQuery(status="stuck"))
        assert picked.counts == [("stuck", 1), ("running", 2), ("errored", 1)]
        assert (picked.total, picked.everything) == (1, 3)


class TestPages:
    MANY = tuple(row(f"{number:05}") for number in range(2 * PER_PAGE + 1))

    @pytest.mark.parametrize(
        ("page", "shown", "first", "count"),
        [(1, 1, 1, PER_PAGE), (2, 2, PER_PAGE + 1, PER_PAGE), (3, 3, 401, 1), (99, 3, 401, 1)],
    )
    def test_a_page(self, page: int, shown: int, first: int, count: int) -> None:
        picked = select(self.MANY, TableQuery(page=page))
        assert (picked.page, picked.pages, picked.first, len(picked.rows)) == (
            shown,
            3,
            first,
            count,
        )

    def test_another_filter_begins_at_page_1(self) -> None:
        assert read(TableQuery(page=3).href(status="stuck")).page == 1
        assert read(TableQuery(page=3).by("due")).page == 1

    def test_nothing_is_one_empty_page(self) -> None:
        assert select([], TableQuery(page=7)) == ([], 0, 0, 1, 1, [], 0)


class TestAddress:
    def test_it_holds_what_differs_from_the_first_view(self) -> None:
        assert TableQuery(q="a", page=3).href() == "?q=a"
        assert TableQuery(q="a").href(page=2) == "?q=a&page=2"

    @given(queries)
    def test_it_leads_back_to_the_view(self, query: TableQuery) -> None:
        assert read(query.href(page=query.page)) == query

    @pytest.mark.parametrize(
        "address",
        ["?page=0", "?page=-1", "?page=x", "?page=%C2%B2", "?page=9999999999", "?sort=__class__"],
    )
    def test_what_makes_no_sense_is_left_out(self, address: str) -> None:
        assert read(address) == TableQuery()

    @given(st.dictionaries(st.sampled_from(["q", "status", "sort", "order", "page"]), st.text()))
    def test_any_parameters_can_be_read(self, parameters: dict[str, str]) -> None:
        select([row()], TableQuery.read(parameters))
