"""Durations, links and queries as people read them."""

from urllib.parse import parse_qs, urlsplit

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.metrics.catalogue import FAMILIES
from exporter.web.page.formatting import (
    NONE,
    ago,
    count,
    instance_href,
    iso,
    overdue,
    queries,
    span,
    utc,
)
from tests.promql import metrics_of
from tests.web.page.test_instance_table import row

names = st.text(min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NONE),
        (0, "0s"),
        (0.25, "250ms"),
        (1.5, "1s 500ms"),
        (5, "5s"),
        (59.9, "59s"),
        (60, "1m"),
        (200, "3m 20s"),
        (3600, "1h"),
        (3 * 3600 + 61, "3h 1m"),
        (86400 * 3 + 4 * 3600, "3d 4h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_moments() -> None:
    assert ago(100, 160) == "1m ago"
    assert ago(160, 100) == "in 1m"
    assert ago(100.2, 100) == "now"
    assert ago(None, 100) == NONE
    assert (overdue(100, 172.4), overdue(100, 100.4)) == ("overdue by 1m 12s", "now")
    assert count(12345) == "12,345"
    assert (utc(0), iso(0)) == ("1970-01-01 00:00:00 UTC", "1970-01-01T00:00:00Z")


@given(names, names, names)
def test_an_address_names_the_instance_whatever_its_name(
    account: str, workflow: str, id_: str
) -> None:
    address = urlsplit(instance_href(row(id_, account=account, workflow=workflow)))
    asked = parse_qs(address.query, keep_blank_values=True)
    assert (address.scheme, address.netloc, address.path) == ("", "", "instance")
    assert asked == {"account": [account], "workflow": [workflow], "id": [id_]}


class TestPromQL:
    def test_it_reads_metrics_that_there_are(self) -> None:
        known = {family.name for family in FAMILIES}
        for _, query in queries(row("a"))[1:]:
            assert {name.removesuffix("_bucket") for name in metrics_of(query)} <= known

    def test_every_series_of_the_instance(self) -> None:
        assert queries(row("a", account="acc"))[0][1] == (
            '{__name__=~"cloudflare_workflow_instance_.+",account="acc",workflow="orders",'
            'instance_id="a"}'
        )

    @given(names.filter(lambda name: "\0" not in name))
    def test_a_name_is_one_value_whatever_is_in_it(self, name: str) -> None:
        selector = promql_parser.parse(queries(row(name))[0][1])
        assert isinstance(selector, promql_parser.VectorSelector)
        values = {m.name: m.value for m in selector.matchers.matchers}
        assert values["instance_id"] == name
