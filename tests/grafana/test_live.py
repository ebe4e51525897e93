"""Every query of the dashboards finds something on a real Prometheus that scraped the exporter."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from simulator import (
    QUEUES_EDIT,
    Attempt,
    Error,
    Script,
    Simulator,
    Sleep,
    Step,
    Wait,
    retried,
    serve_in_thread,
    steps,
)
from simulator.credentials import PERMISSIONS
from tests.e2e.daemon import configuration, daemon
from tests.grafana.queries import expressions, filled_in
from tests.grafana.test_dashboards import DASHBOARDS
from tests.postgres import PostgresServer
from tests.prometheus import Prometheus, prometheus
from tests.waiting import wait_until
from tools import ROOT

pytestmark = [pytest.mark.prometheus, pytest.mark.postgres, pytest.mark.slow(8)]

TOKEN = "the-token"
CREATED = 600
"""Instances that come while Prometheus scrapes, two a second: some fail, all retry."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Prometheus]:
    """Has scraped a replica whose workflow does everything that a dashboard shows."""
    folder = tmp_path_factory.mktemp("dashboards")
    simulator = Simulator(clock=time.time)
    simulator.access.token(TOKEN, permissions=[*PERMISSIONS, QUEUES_EDIT])
    simulator.limit.quota = 1_000_000  # so that responses say what is left
    orders = simulator.world.account("acc").workflow("orders")
    announced = simulator.world.account("announced").workflow("orders")
    simulator.world.account("announced").queue("q-1", "orders")
    orders.release(step_limit=1024, concurrency=100)
    orders.create("waits", Script(pieces=(*steps("fetch"), Wait("approval"))))
    orders.create("sleeps", Script(pieces=(Sleep("nap", 3600),)))
    orders.create("hangs", Script(pieces=(Step("call", (Attempt(None),)),)))
    for n in range(CREATED):
        throws = Error("Boom") if n % 2 else None
        pieces = retried("charge", failures=1, duration=0.1, backoff=0.1)
        script = Script(queued=0.1, pieces=(pieces,), throws=throws)
        orders.create(f"order-{n}", script, at=time.time() + n / 2)
        announced.create(f"order-{n}", script, at=time.time() + n / 2)
    workflows = [{"name": "orders", "discover": {"min_age": "0s"}}]
    rules = folder / "rules.yaml"
    text = (ROOT / "alerts" / "prometheus.rules.yaml").read_text()
    for wait in ("5m", "30m"):
        text = text.replace(f"offset {wait}", "offset 5s")
    rules.write_text(text.replace("[30m]", "[5s]"))
    database = postgres.new_url()
    as_often_as_a_scrape = {"poll": {"interval": "1s"}}
    with serve_in_thread(simulator) as served:
        configuration(
            folder,
            f"{served.url}/accounts/{{account_id}}",
            as_often_as_a_scrape,
            api_token=TOKEN,
            workflows=workflows,
        )
        events = folder / "events"  # not with a database
        events.mkdir()
        configuration(
            events,
            f"{served.url}/accounts/{{account_id}}",
            as_often_as_a_scrape,
            name="with-events",
            account_id="announced",
            api_token=TOKEN,
            events={"queue_id": "q-1", "api_token": TOKEN},
            workflows=workflows,
        )
        config = (
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            "scrape_configs: [{job_name: workflows, static_configs: [{targets: [ADDRESSES]}]}]\n"
            f"rule_files: [{rules}]\n"
        )
        with (
            daemon(folder, "--api.requests-per-5m=1000000", f"--state.url={database}") as exporter,
            daemon(events) as other,
            prometheus(
                folder, config.replace("ADDRESSES", f"'{exporter.address}', '{other.address}'")
            ) as running,
        ):
            yield running


NOTHING_WRONG = {"Failing instances"}
"""Panels that are empty while all is well."""


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])
def test_every_query_finds_something(server: Prometheus, board: dict[str, Any]) -> None:
    panels = [panel for panel in board["panels"] if panel["title"] not in NOTHING_WRONG]
    left = {filled_in(expression) for expression in expressions({"panels": panels})}

    def found() -> bool:
        left.difference_update({query for query in left if server.query(query)})
        return not left

    wait_until(found, lambda: "\n".join(left))


def test_every_variable_has_values(server: Prometheus) -> None:
    left = {
        variable["query"]["query"]
        for board in DASHBOARDS
        for variable in board["templating"]["list"]
        if variable["type"] == "query"
    }
    assert left

    def values(query: str) -> set[str]:
        text = query.removeprefix("label_values(").removesuffix(")")
        selector, _, label = text.rpartition(", ")
        return {labels[label] for labels, _ in server.query(filled_in(selector))}

    def found() -> bool:
        left.difference_update({query for query in left if values(query)})
        return not left

    wait_until(found, lambda: "\n".join(left))
