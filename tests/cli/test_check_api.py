"""`--check-api`: one line a finding, each with its fix; status 1 when something is wrong."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from demo import LocalEngine
from exporter.state.backend import DatabaseServer
from exporter.state.open_state import opened
from simulator import (
    QUEUES_EDIT,
    QUEUES_READ,
    Drop,
    Queue,
    Rewrite,
    Script,
    Simulator,
    error,
    serve_in_thread,
    steps,
)
from tests.cli.command import Command
from tests.ports import reserved_port
from tests.postgres import PASSWORD, PostgresServer
from tests.waiting import DEADLINE

ACCOUNT = {
    "name": "production",
    "account_id": "acc",
    "api_token": "hidden",
    "workflows": [{"name": "orders", "instances": ["o-1"]}, {"name": "report-*", "discover": {}}],
}


class Check:
    """Runs `--check-api` against the simulator."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.command = Command(folder)
        self.simulator = simulator
        self.url = simulator.url + "/accounts/{account_id}"
        self.accounts: list[dict[str, Any]] = [dict(ACCOUNT)]
        self.settings: dict[str, Any] = {}

    @property
    def account(self) -> dict[str, Any]:
        return self.accounts[0]

    def __call__(self, *flags: str) -> tuple[int, list[str]]:
        """The exit status, and the findings."""
        tree = {"api": {"url": self.url}, "accounts": self.accounts, **self.settings}
        self.command.file(json.dumps(tree))  # which is YAML
        done = self.command("--check-api", *flags)
        assert done.stderr == ""
        assert "hidden" not in done.stdout
        assert [p.name for p in self.command.folder.iterdir()] == [
            "config.yaml"
        ]  # no state is made
        return done.returncode, done.stdout.splitlines()

    def wrong(self) -> list[str]:
        """What it says is wrong; there must be something."""
        status, lines = self()
        assert status == 1
        return [line.removeprefix("wrong  ") for line in lines if line.startswith("wrong  ")]


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Check]:
    simulator = Simulator()
    simulator.access.token("hidden")
    account = simulator.world.account("acc")
    account.workflow("orders").create("o-1", Script(steps("a")))
    account.workflow("report-daily")
    account.workflow("report-weekly")
    with serve_in_thread(simulator) as served:
        yield Check(tmp_path, served)


class TestEvents:
    @pytest.fixture
    def queue(self, check: Check) -> Queue:
        check.account["events"] = {"queue_id": "q-1", "api_token": "hidden-too"}
        check.simulator.access.token("hidden-too", permissions=[QUEUES_EDIT])
        return check.simulator.world.account("acc").queue("q-1", "orders", name="changes")

    def test_their_queue_is_checked_without_taking_a_message(
        self, check: Check, queue: Queue
    ) -> None:
        queue.push({"n": 1}, 0)
        status, lines = check()
        text = "ok     production: queue changes has a pull consumer, and its token may pull"
        assert (status, text in lines) == (0, True)
        assert (queue.backlog, queue.leased, check.simulator.requests.by_kind["pull"]) == (1, 0, 0)

    def test_one_that_refuses_an_empty_list_may_be_pulled(self, check: Check, queue: Queue) -> None:
        queue.push({"n": 1}, 0)
        check.simulator.faults.add(error(400), kind="ack")
        status, _ = check()
        assert (status, check.simulator.requests.by_kind["ack"]) == (0, 1)

    @pytest.mark.parametrize(
        "given",
        [
            ("worker", QUEUES_EDIT, "q-1", "the queue's consumer is worker, and must be http_pull"),
            (None, QUEUES_EDIT, "q-1", "the queue's consumer is missing, and must be http_pull"),
            ("http_pull", QUEUES_READ, "q-1", "give events.api_token the permission Queues Edit"),
            ("http_pull", QUEUES_EDIT, "q-2", "check events.queue_id and account_id"),
        ],
    )
    def test_a_queue_that_cannot_be_pulled_is_wrong(
        self, check: Check, queue: Queue, given: tuple[Any, str, str, str]
    ) -> None:
        queue.consumer, permission, queue_id, problem = given
        check.simulator.access.token("hidden-too", permissions=[permission])
        check.account["events"]["queue_id"] = queue_id
        (line,) = check.wrong()
        assert line.startswith("production: events: ")
        assert problem in line


class TestWhenAllIsWell:
    def test_it_says_what_it_found(self, check: Check) -> None:
        check.simulator.limit.quota = 1200
        status, lines = check()
        assert lines == [
            "ok     production: credential can read the account's workflows: 3 found",
            "ok     production: workflow orders exists",
            "ok     production: workflow report-* matches report-daily, report-weekly",
            "ok     production: 1 configured instance(s) found",
            "ok     production: 1197 of 1200 requests in 5 minutes are left; the exporter sends at "
            "most 600",
            "ok     clock: correct to within 5 s",
        ]
        assert status == 0

    def test_it_costs_few_requests_however_much_is_listed(self, check: Check) -> None:
        ids = [f"o-{number}" for number in range(300)]
        check.account["workflows"] = [{"name": "orders", "instances": ids}]
        status, lines = check()
        assert status == 0
        assert (
            "note   production: 280 more configured instance(s) not requested, to spare the budget"
            in lines
        )
        assert check.simulator.requests.total == 21

    def test_a_shared_budget_is_not_overdrawn_by_many_accounts(self, check: Check) -> None:
        names = [f"acc-{number}" for number in range(3)]
        check.accounts = [{**ACCOUNT, "name": name} for name in names]
        status, lines = check()
        assert status == 0
        assert [line for line in lines if "can read" in line] == [
            f"ok     {name}: credential can read the account's workflows: 3 found" for name in names
        ]


class TestCredentials:
    def test_a_wrong_token(self, check: Check) -> None:
        check.account["api_token"] = "hidden-too"
        assert check.wrong() == [
            "production: HTTP 401: Authentication error (code 10000); check the API token: it is "
            "wrong, expired or revoked"
        ]

    def test_what_is_no_token_at_all(self, check: Check) -> None:
        """Cloudflare says 400 to what can't be a token: pasted with its name, say."""
        check.simulator.faults.add(error(400, 6003, "Invalid request headers"))
        assert check.wrong() == [
            "production: HTTP 400: Invalid request headers (code 6003); check the API token, or "
            "e-mail and key: their format is invalid"
        ]

    def test_a_missing_permission(self, check: Check) -> None:
        check.simulator.access.token("hidden", permissions=["DNS Read"])
        (line,) = check.wrong()
        assert line.startswith("production: HTTP 403: Authentication error (code 10000); give the")
        assert "Workers Scripts Read" in line
        assert line.endswith("for this account, and check account_id")

    def test_another_account(self, check: Check) -> None:
        check.simulator.access.token("hidden", accounts=["acc"])
        check.account["account_id"] = "other"
        (line,) = check.wrong()
        assert line.startswith("production: HTTP 403")
        assert line.endswith("check account_id")

    def test_an_account_id_that_is_none(self, check: Check) -> None:
        check.simulator.faults.add(error(404, 7003, "Could not route"), kind="workflows")
        (line,) = check.wrong()
        assert line.endswith("Could not route (code 7003); check account_id and api.url")

    def test_one_account_that_fails_leaves_the_others_checked(self, check: Check) -> None:
        check.accounts.append({**ACCOUNT, "name": "staging", "api_token": "hidden-too"})
        status, lines = check()
        assert status == 1
        assert "ok     production: workflow orders exists" in lines
        assert [line[:19] for line in lines if line.startswith("wrong")] == ["wrong  staging: HTT"]


class TestNames:
    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("ordres", "is named ordres; did you mean orders?"),
            ("report_daily", "is named report_daily; did you mean report-daily, report-weekly?"),
            ("zz", "is named zz; the account has: orders, report-daily, report-weekly."),
            ("zz-*", "matches zz-*; the account has: orders, report-daily, report-weekly."),
        ],
    )
    def test_an_unknown_workflow_gets_those_near_it(
        self, check: Check, name: str, problem: str
    ) -> None:
        check.account["workflows"] = [{"name": name, "discover": {}}]
        assert check.wrong() == [f"production: no workflow {problem} Check the name and account_id"]

    def test_names_are_found_on_further_pages(self, check: Check) -> None:
        for number in range(150):
            check.simulator.world.account("acc").workflow(f"many-{number:03}")
        check.account["workflows"] = [{"name": "many-149", "discover": {}}]
        assert check()[0] == 0

    def test_an_instance_that_is_not_there_is_noted(self, check: Check) -> None:
        """It may be created later, and the exporter keeps polling it: nothing is wrong."""
        check.account["workflows"] = [{"name": "orders", "instances": ["o-1", "o-2"]}]
        status, lines = check()
        assert status == 0
        assert (
            "note   production: instance orders/o-2 does not exist (404): check its id, unless it "
            "will be created later" in lines
        )

    def test_instances_that_cannot_be_listed(self, check: Check) -> None:
        check.simulator.faults.add(error(500, 1, "broken"), kind="list")
        assert check.wrong() == [
            "production: instances of report-daily can't be listed: HTTP 500: broken (code 1)"
        ]

    def test_hostile_names_do_not_steer_the_terminal(self, check: Check) -> None:
        def hostile(reply: Any) -> Any:
            reply.body = reply.body.replace(b"report-daily", b"\\u001b[31mred\\nok")
            return reply

        check.simulator.faults.add(Rewrite(hostile), kind="workflows")
        check.account["workflows"] = [{"name": "zz", "discover": {}}]
        (line,) = check.wrong()
        assert line.isprintable()
        assert "\\x1b[31mred\\nok" in line


class TestTheBudget:
    def test_a_lockout_ends_the_check_and_says_why(self, check: Check) -> None:
        """No further request is sent: each would be refused as well."""
        check.accounts.append({**ACCOUNT, "name": "staging"})
        check.simulator.limit.quota = 1
        check.simulator.limit.spend(1, "user@example.com")
        first, second = check.wrong()
        assert first.startswith("production: HTTP 429: Rate limited.")
        assert re.fullmatch(
            r"staging: not checked: the API refuses the credential's requests for \d+ s", second
        )
        assert check.simulator.requests.total == 1

    def test_what_other_tools_leave_is_said(self, check: Check) -> None:
        check.simulator.limit.quota = 1200
        check.simulator.limit.spend(800, "user@example.com")
        status, lines = check()
        assert status == 0
        assert (
            "note   production: 397 of 1200 requests in 5 minutes are left; other tools of the "
            "same user leave the exporter 160 of the 600 that it may send; give it a token of a "
            "user of its own" in lines
        )


class TestTheClock:
    @pytest.mark.parametrize(("seconds", "side"), [(100_000, "behind"), (-100_000, "ahead of")])
    def test_a_skewed_one(self, check: Check, seconds: int, side: str) -> None:
        check.simulator.world.clock = lambda: time.time() + seconds
        (line,) = check.wrong()
        found = re.fullmatch(
            rf"clock: this machine's clock is (\d+) s {side} the API's; synchronize it, for "
            "example with NTP: ages, and what counts as history, are wrong by as much",
            line,
        )
        assert found, line
        # The header has whole seconds, and a response takes its time.
        assert abs(int(found[1]) - abs(seconds)) < DEADLINE


class TestTheWay:
    def test_a_host_that_refuses(self, check: Check) -> None:
        with reserved_port() as port:
            check.url = f"http://127.0.0.1:{port}"
            (line,) = check.wrong()
        refused = f"127.0.0.1:{port}: Connection refused"
        assert line == f"production: {refused}; check api.url, firewalls and proxies"

    def test_a_host_that_is_unknown(self, check: Check) -> None:
        check.url = "https://nowhere.invalid/{account_id}"
        (line,) = check.wrong()
        assert re.match(
            r"production: nowhere\.invalid: \w[\w ]+; check api\.url, HTTPS_PROXY", line
        )

    def test_a_host_that_speaks_no_tls(self, check: Check) -> None:
        check.url = check.url.replace("http:", "https:")
        (line,) = check.wrong()
        assert "; api.url must name a host and port that speak TLS" in line

    def test_a_host_that_hangs_up(self, check: Check) -> None:
        check.simulator.faults.add(Drop())
        (line,) = check.wrong()
        assert line.startswith("production: 127.0.0.1:")


def test_it_checks_one_thing_at_a_time(check: Check) -> None:
    done = check.command("--check-api", "--once")
    assert done.returncode == 2
    assert "argument --once: not allowed with argument --check-api" in done.stderr


@pytest.mark.engine
def test_cloudflares_own_engine(tmp_path: Path, engine: LocalEngine) -> None:
    engine.create("orders", "checked", "ok")
    tree = {
        "api": {"url": engine.api},
        "accounts": [
            {
                "name": "local",
                "workflows": [
                    {"name": "orders", "instances": ["checked", "never"]},
                    {"name": "odrers", "discover": {}},
                ],
            }
        ],
    }
    command = Command(tmp_path)
    command.file(json.dumps(tree))
    done = command("--check-api")
    lines = done.stdout.splitlines()
    assert "ok     local: workflow orders exists" in lines
    assert "ok     local: 1 configured instance(s) found" in lines
    assert any(line.startswith("note   local: instance orders/never does not") for line in lines)
    assert "note   local: no rate-limit headers received; Cloudflare's API sends them" in lines
    (wrong,) = (line for line in lines if line.startswith("wrong"))
    assert "no workflow is named odrers; did you mean orders?" in wrong
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.postgres
class TestDatabase:
    """`state.url` is tried too, and nothing is left behind."""

    def found(self, check: Check, url: str) -> tuple[int, str]:
        check.settings = {"state": {"url": url}}
        status, findings = check()
        return status, findings[-1]

    def test_one_that_can_be_used(self, check: Check, postgres: PostgresServer) -> None:
        database = postgres.new_database()
        for _ in range(2):
            expected = 0, "ok     state.url: the database can be used"
            assert self.found(check, postgres.url(database)) == expected
            assert postgres.tables(database) == 0

    def test_one_that_can_not(self, check: Check, postgres: PostgresServer) -> None:
        user = postgres.new_user()
        url = postgres.url("postgres", user=user).replace("s3cret", "hidden")
        status, finding = self.found(check, url)
        assert status == 1
        assert finding.startswith("wrong  state.url: ")
        assert f'password authentication failed for user "{user}"' in finding
        assert PASSWORD not in finding

    def test_one_in_which_it_may_make_no_tables(
        self, check: Check, postgres: PostgresServer
    ) -> None:
        database = postgres.new_database()
        postgres.execute(
            f"ALTER DATABASE {database} OWNER TO admin",
            "REVOKE CREATE ON SCHEMA public FROM public",
            database=database,
        )
        expected = 1, "wrong  state.url: permission denied for schema public"
        assert self.found(check, postgres.url(database)) == expected

    @pytest.mark.parametrize("what", ["TABLE series", "TABLE leases", "SEQUENCE epochs"])
    def test_one_of_which_it_may_not_write_all(
        self, check: Check, postgres: PostgresServer, what: str
    ) -> None:
        database = postgres.new_database()
        opened(DatabaseServer(SecretStr(postgres.url(database)), None, DEADLINE)).close()
        kind, name = what.split()
        postgres.execute(
            f"ALTER {what} OWNER TO admin",
            f"GRANT SELECT ON {what} TO {database}",
            database=database,
        )
        expected = 1, f"wrong  state.url: permission denied for {kind.lower()} {name}"
        assert self.found(check, postgres.url(database)) == expected
