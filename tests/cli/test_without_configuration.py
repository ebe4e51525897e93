"""Without a configuration every workflow of the environment's account is watched."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import PROGRAM
from simulator import Rewrite, Script, Simulator, Wait, error, serve_in_thread
from tests.cli.command import Command
from tests.e2e.daemon import daemon, environment
from tests.ports import reserved_port
from tests.waiting import wait_until

TOKEN = {"CLOUDFLARE_API_TOKEN": "hidden"}
LINE = "no configuration file; watching every workflow of the account"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = Simulator()
    simulator.access.token("hidden", accounts=["acc"])
    for account in ("acc", "other"):
        for workflow in ("orders", "billing"):
            created = simulator.world.account(account).workflow(workflow)
            # Older than `discover.min_age`.
            an_hour_ago = time.time() - 3600
            created.create(f"{workflow}-1", Script((Wait("approval"),)), at=an_hour_ago)
    with serve_in_thread(simulator) as served:
        yield served


class Without:
    """Runs the command without a file; its URL is in the environment."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.command = Command(folder)
        self.environ = {
            "CWE_API__URL": f"{simulator.url}/accounts/{{account_id}}",
            "CWE_STATE__PATH": "null",
        }

    def once(self, **environ: str) -> tuple[int, str, str]:
        done = self.command("--once", **self.environ, **environ)
        assert "hidden" not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    def refused(self, **environ: str) -> list[str]:
        """The lines that say what is wrong, with exit status 2."""
        status, out, err = self.once(**environ)
        first, *lines = err.splitlines()
        assert (status, out) == (2, "")
        assert first == f"{PROGRAM}: wrong configuration: no configuration file"
        return lines


@pytest.fixture
def without(tmp_path: Path, simulator: Simulator) -> Without:
    return Without(tmp_path, simulator)


def watched(metrics: str) -> set[tuple[str, ...]]:
    """Account, workflow and id of each instance that is shown."""
    return set(
        re.findall(
            r'^cloudflare_workflow_instance_info{account="(.+?)",workflow="(.+?)",'
            r'instance_id="(.+?)"',
            metrics,
            re.MULTILINE,
        )
    )


ALL = {("acc", name, f"{name}-1") for name in ("orders", "billing")}


class TestWhatIsWatched:
    def test_every_workflow_of_the_account_that_is_named(
        self, without: Without, simulator: Simulator
    ) -> None:
        status, out, err = without.once(**TOKEN, CLOUDFLARE_ACCOUNT_ID="acc")
        assert (status, watched(out)) == (0, ALL)
        line, *found = err.splitlines()
        assert all("workflow found" in more for more in found)
        assert LINE in line
        assert "account=acc" in line
        assert "config.yaml" in line
        assert simulator.requests.by_kind["accounts"] == 0

    def test_with_an_email_and_key(self, without: Without, simulator: Simulator) -> None:
        simulator.access.key("sre@example.com", "hidden", accounts=["acc"])
        pair = {"CLOUDFLARE_EMAIL": "sre@example.com", "CLOUDFLARE_API_KEY": "hidden"}
        for more in ({}, {"CLOUDFLARE_ACCOUNT_ID": "acc"}):
            status, out, _ = without.once(**pair, **more)
            assert (status, watched(out)) == (0, ALL)

    def test_the_only_account_of_the_token(self, without: Without, simulator: Simulator) -> None:
        status, out, err = without.once(**TOKEN)
        assert (status, watched(out)) == (0, ALL)
        assert "account=acc" in err
        assert simulator.requests.by_kind["accounts"] == 1

    def test_settings_of_the_environment_and_flags_hold(self, without: Without) -> None:
        done = without.command(
            "--check-config",
            "--api.requests-per-5m=300",
            CWE_POLL__INTERVAL="60s",
            CLOUDFLARE_ACCOUNT_ID="acc",
            **TOKEN,
        )
        assert done.returncode == 0
        assert "of 300" in done.stdout
        assert "1m with 1,000 live instances" in done.stdout

    def test_a_file_says_what_is_watched_instead(self, without: Without) -> None:
        without.command.file(
            "accounts: [{account_id: acc, workflows: [{name: orders, discover: {}}]}]"
        )
        status, out, err = without.once(**TOKEN, CLOUDFLARE_ACCOUNT_ID="other")
        assert (status, watched(out), err) == (0, {("acc", "orders", "orders-1")}, "")

    def test_a_file_that_takes_everything_is_not_said_to_be_missing(self, without: Without) -> None:
        without.command.file(
            "accounts: [{account_id: acc, workflows: [{name: '*', discover: {}}]}]"
        )
        status, out, err = without.once(**TOKEN)
        assert (status, watched(out)) == (0, ALL)
        assert LINE not in err

    @pytest.mark.parametrize(
        ("failing", "left"),
        [
            ({"workflow": "billing"}, {("acc", "orders", "orders-1")}),
            ({"kind": "workflows"}, set()),
        ],
    )
    def test_a_list_that_fails_is_a_failure(
        self, without: Without, simulator: Simulator, failing: dict[str, str], left: set[Any]
    ) -> None:
        simulator.faults.add(error(500), **failing)
        status, out, _ = without.once(**TOKEN, CLOUDFLARE_ACCOUNT_ID="acc")
        assert (status, watched(out)) == (1, left)

    def test_accounts_of_the_environment_do_too(self, without: Without) -> None:
        accounts = '[{"account_id": "acc", "workflows": [{"name": "orders", "discover": {}}]}]'
        status, out, err = without.once(**TOKEN, CWE_ACCOUNTS=accounts)
        assert (status, watched(out), err) == (0, {("acc", "orders", "orders-1")}, "")

    def test_check_api_knows_the_account(self, without: Without) -> None:
        done = without.command("--check-api", **without.environ, **TOKEN)
        assert done.returncode == 0
        assert "workflow * matches billing, orders" in done.stdout

    def test_check_config_makes_no_request(self, without: Without, simulator: Simulator) -> None:
        done = without.command("--check-config", **without.environ, **TOKEN)
        assert (done.returncode, done.stderr) == (0, "")
        assert "the account of the credential: 1 workflow(s) to discover" in done.stdout
        assert simulator.requests.total == 0


@pytest.mark.process
class TestTheDaemon:
    def test_it_serves_and_reloads_without_looking_the_account_up_again(
        self, without: Without, simulator: Simulator, tmp_path: Path
    ) -> None:
        with daemon(tmp_path, environ=environment(**without.environ, **TOKEN)) as running:
            running.wait_until_ready()
            assert watched(running.metrics()) == ALL
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "configuration reloaded" in running.stderr(), running.stderr)
            assert watched(running.metrics()) == ALL
            assert running.stderr().count(LINE) == 1
            assert running.stop() == 0
        assert simulator.requests.by_kind["accounts"] == 1


class TestWhatIsRefused:
    def test_several_accounts_are_named(self, without: Without, simulator: Simulator) -> None:
        simulator.access.token("hidden")
        simulator.world.account("acc").name = "Production\x1b[31m\n"
        assert without.refused(**TOKEN) == [
            "  CLOUDFLARE_ACCOUNT_ID: is missing, and the credential can read several; set it to "
            "the id of one of them:",
            "    acc  Production\\x1b[31m\\n",
            "    other  other's account",
        ]

    def test_more_than_a_page_of_accounts(self, without: Without, simulator: Simulator) -> None:
        simulator.access.token("hidden")
        for number in range(60):
            simulator.world.account(f"a-{number}")
        first, *lines = without.refused(**TOKEN)
        assert first.endswith("the id of one of them (the first 50):")
        assert len(lines) == 50

    def test_no_account_at_all(self, without: Without, simulator: Simulator) -> None:
        """As with tokens that lack the permission to list accounts."""
        simulator.access.token("hidden", accounts=[])
        assert without.refused(**TOKEN) == [
            "  CLOUDFLARE_ACCOUNT_ID: is missing, and the credential can read no account; set it "
            "to the id that Cloudflare's dashboard shows"
        ]

    def test_a_token_that_an_account_owns(self, without: Without, simulator: Simulator) -> None:
        simulator.access.token("hidden", accounts=["acc"], account_owned=True)
        assert without.refused(**TOKEN) == [
            "  CLOUDFLARE_ACCOUNT_ID: is missing, and the API lists no accounts: HTTP 400: List "
            "accounts endpoint does not support account owned tokens. (code 1001); set it to the "
            "id that Cloudflare's dashboard shows"
        ]
        assert without.once(**TOKEN, CLOUDFLARE_ACCOUNT_ID="acc")[0] == 0

    def test_a_wrong_token(self, without: Without, simulator: Simulator) -> None:
        simulator.access.revoke("hidden")
        (line,) = without.refused(**TOKEN)
        assert "HTTP 401: Authentication error (code 10000); check the credential, then " in line

    def test_a_wrong_id_together_with_all_else_that_is_wrong(self, without: Without) -> None:
        environ = {
            "CLOUDFLARE_API_TOKEN": "hidden hidden",
            "CLOUDFLARE_ACCOUNT_ID": "my account",
            "CWE_POLL__INTERVAL": "3",
        }
        assert without.refused(**environ) == [
            "  accounts[0].account_id (from CLOUDFLARE_ACCOUNT_ID): not an account id: copy it "
            "from Cloudflare's dashboard, 32 hex digits (it is 'my account')",
            "  accounts[0].api_token (from CLOUDFLARE_API_TOKEN): holds characters that no API "
            "token or key has, such as quotes or spaces",
            "  poll.interval (from CWE_POLL__INTERVAL): not a duration; write it with its unit, as "
            "in 15s, 5m or 1h30m (it is '3')",
        ]

    def test_nothing_is_requested_while_something_else_is_wrong(
        self, without: Without, simulator: Simulator
    ) -> None:
        without.refused(**TOKEN, CWE_POLL__INTERVAL="3")
        assert simulator.requests.total == 0

    def test_a_wrong_id_from_the_api(self, without: Without, simulator: Simulator) -> None:
        def odd(reply: Any) -> Any:
            reply.body = reply.body.replace(b'"acc"', b'"../acc"')
            reply.headers["content-length"] = str(len(reply.body))
            return reply

        simulator.faults.add(Rewrite(odd), kind="accounts")
        (line,) = without.refused(**TOKEN)
        assert "not an account id" in line

    def test_an_api_that_lists_no_accounts(self, without: Without) -> None:
        """Such as a local engine."""
        without.environ["CWE_API__URL"] = "http://127.0.0.1:8787/cdn-cgi/local/explorer/api"
        (line,) = without.refused(**TOKEN)
        assert line.startswith("  CLOUDFLARE_ACCOUNT_ID: is missing")

    def test_a_file_that_is_named_and_not_there(self, without: Without) -> None:
        done = without.command("--config.file=none.yaml", **without.environ, **TOKEN)
        assert done.returncode == 2
        assert "  none.yaml: can't be read: No such file or directory" in done.stderr

    def test_a_file_without_accounts(self, without: Without) -> None:
        without.command.file("poll: {interval: 5s}")
        done = without.command(**without.environ, **TOKEN)
        assert done.returncode == 2
        assert "  accounts: is missing" in done.stderr.splitlines()


class TestWhatMayPass:
    """Status 1, after which a supervisor starts it again."""

    def test_an_api_that_fails(self, without: Without, simulator: Simulator) -> None:
        simulator.faults.add(error(500, 1, "broken"), kind="accounts")
        status, out, err = without.once(**TOKEN)
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        assert "failed to list the accounts of the credential" in line
        assert "HTTP 500: broken (code 1)" in line
        assert "with CLOUDFLARE_ACCOUNT_ID set" in line

    def test_an_api_out_of_reach(self, without: Without) -> None:
        with reserved_port() as port:
            without.environ["CWE_API__URL"] = f"http://127.0.0.1:{port}/accounts/{{account_id}}"
            status, _, err = without.once(**TOKEN)
        assert status == 1
        assert "Connection refused" in err
        assert 'advice="check api.url, firewalls and proxies; with CLOUDFLARE_ACCOUNT_ID set' in err
