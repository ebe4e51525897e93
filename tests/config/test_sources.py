"""File, environment and flags: which wins, and how each is written."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from exporter.config import flags
from exporter.config import load as config
from exporter.config.errors import ConfigError
from exporter.config.settings import Settings

FILE = """
accounts: [{account_id: acc, api_token: hidden, workflows: [{name: orders, instances: [a]}]}]
"""


class Command:
    """What a command line, environment and file together make of the settings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path, self._monkeypatch = folder / "config.yaml", monkeypatch
        self._environ: dict[str, str] = {}
        self.file()

    def file(self, more: str = "") -> "Command":
        self._path.write_text(FILE + more)
        return self

    def environment(self, **variables: str) -> "Command":
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        self._environ |= variables
        return self

    def load(self, *argv: str) -> Settings:
        parser = flags.Parser(argument_default=argparse.SUPPRESS)
        flags.add(parser)
        return config.load(self._path, flags.given(parser.parse_args(argv)), self._environ)

    def problems(self, *argv: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(*argv)
        return caught.value.problems


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None) -> Command:
    return Command(tmp_path, monkeypatch)


class TestPrecedence:
    def test_defaults_come_last(self, command: Command) -> None:
        assert str(command.load().poll.interval) == "15s"

    def test_the_file_beats_defaults(self, command: Command) -> None:
        assert str(command.file("poll: {interval: 5s}").load().poll.interval) == "5s"

    def test_the_environment_beats_the_file(self, command: Command) -> None:
        command.file("poll: {interval: 5s}").environment(CWE_POLL__INTERVAL="6s")
        assert str(command.load().poll.interval) == "6s"

    def test_flags_beat_the_environment(self, command: Command) -> None:
        command.file("poll: {interval: 5s}").environment(CWE_POLL__INTERVAL="6s")
        assert str(command.load("--poll.interval=7s").poll.interval) == "7s"

    def test_sections_are_put_together_key_by_key(self, command: Command) -> None:
        command.file("poll: {interval: 5s}").environment(CWE_POLL__DETAIL_REFRESH="6s")
        poll = command.load("--poll.ended-interval=7s").poll
        assert list(map(str, (poll.interval, poll.detail_refresh, poll.ended_interval))) == [
            "5s",
            "6s",
            "7s",
        ]

    def test_a_null_section_in_the_file_is_no_obstacle(self, command: Command) -> None:
        command.file("poll:\n").environment(CWE_POLL__INTERVAL="6s")
        assert str(command.load().poll.interval) == "6s"

    def test_a_key_hides_no_problem_of_the_files_section(self, command: Command) -> None:
        command.file("poll: 5s").environment(CWE_POLL__INTERVAL="6s")
        assert command.problems() == [
            "poll: must be a mapping with keys such as interval, detail_refresh, ended_interval"
        ]


class TestFlags:
    @pytest.mark.parametrize(
        ("flag", "section", "key", "value"),
        [
            ("--api.requests-per-5m=60", "api", "requests_per_5m", 60),
            ("--api.allow-plain-http", "api", "allow_plain_http", True),
            ("--api.allow-plain-http=false", "api", "allow_plain_http", False),
            ("--metrics.backfill", "metrics", "backfill", True),
            ("--metrics.backfill=null", "metrics", "backfill", None),
            ("--state.path=null", "state", "path", None),
            ("--state.path=/var/lib/x.db", "state", "path", Path("/var/lib/x.db")),
            ("--log.format=json", "log", "format", "json"),
            ("--replica.name=null", "replica", "name", "auto"),
            ("--web.config.file=null", "web", "config_file", None),
            ("--web.config-file=null", "web", "config_file", None),
        ],
    )
    def test_each_kind_of_value(
        self, command: Command, flag: str, section: str, key: str, value: object
    ) -> None:
        assert getattr(getattr(command.load(flag), section), key) == value

    @pytest.mark.parametrize("text", ["1,2.5, 8", "[1, 2.5, 8]"])
    def test_lists_with_commas_or_as_json(self, command: Command, text: str) -> None:
        settings = command.load(f"--metrics.buckets.step-attempts={text}")
        assert settings.metrics.buckets.step_attempts == [1, 2.5, 8]

    def test_accounts_as_json(self, command: Command) -> None:
        settings = command.load(
            '--accounts=[{"account_id": "b", "api_token": "t",'
            ' "workflows": [{"name": "w", "discover": {}}]}]'
        )
        assert [account.label for account in settings.accounts] == ["b"]

    @pytest.mark.parametrize("text", ["hidden", '[{"api_token": "hidden"', "[" * 100_000])
    def test_a_list_that_cannot_be_read_is_refused_unseen(
        self, command: Command, text: str
    ) -> None:
        assert command.problems(f"--accounts={text}") == [
            "accounts (from --accounts): must be a list, in JSON"
        ]

    def test_a_problem_names_its_flag(self, command: Command) -> None:
        command.environment(CWE_LOG__LEVEL="info")
        assert command.problems("--log.level=loud") == [
            "log.level (from --log.level): must be 'debug', 'info', 'warning' or 'error' "
            "(it is 'loud')"
        ]


class TestEnvironment:
    def test_null_is_null(self, command: Command) -> None:
        assert command.environment(CWE_STATE__PATH="null").load().state.path is None

    def test_names_may_be_in_lower_case(self, command: Command) -> None:
        assert str(command.environment(cwe_poll__interval="6s").load().poll.interval) == "6s"

    @pytest.mark.parametrize("text", ["1,2", "[1, 2]"])
    def test_lists_with_commas_or_as_json(self, command: Command, text: str) -> None:
        command.environment(CWE_METRICS__BUCKETS__STEP_ATTEMPTS=text)
        assert command.load().metrics.buckets.step_attempts == [1, 2]

    def test_a_section_as_json(self, command: Command) -> None:
        command.environment(CWE_POLL='{"interval": "6s"}')
        assert str(command.load().poll.interval) == "6s"

    def test_a_key_ranks_above_its_section(self, command: Command) -> None:
        """In whatever order they come."""
        command.environment(
            CWE_METRICS__STEP_NAMES__LIMIT="7",
            CWE_METRICS__STEP_NAMES='{"limit": 6, "rewrite": []}',
        )
        assert command.load().metrics.step_names.limit == 7

    def test_a_flag_hides_no_problem_of_a_section(self, command: Command) -> None:
        command.environment(CWE_POLL="hidden")
        assert command.problems("--poll.interval=5s") == [
            "poll (from CWE_POLL): must be a mapping in JSON with keys such as interval, "
            "detail_refresh, ended_interval"
        ]

    def test_accounts_as_json(self, command: Command) -> None:
        command.environment(
            CWE_ACCOUNTS='[{"account_id": "b", "workflows": [{"name": "w", "discover": {}}]}]',
            CLOUDFLARE_API_TOKEN="hidden",
        )
        assert [account.label for account in command.load().accounts] == ["b"]

    @pytest.mark.parametrize(
        ("variable", "value", "problem"),
        [
            (
                "CWE_POLL__INTERVAL",
                "6",
                "poll.interval (from CWE_POLL__INTERVAL): not a duration; "
                "write it with its unit, as in 15s, 5m or 1h30m (it is '6')",
            ),
            (
                "CWE_POLL",
                "hidden",
                "poll (from CWE_POLL): must be a mapping in JSON with keys such as interval, "
                "detail_refresh, ended_interval",
            ),
            (
                "CWE_ACCOUNTS",
                '[{"api_token": "hidden"',
                "accounts (from CWE_ACCOUNTS): must be a list, in JSON",
            ),
            (
                "CWE_METRICS__BUCKETS__STEP_ATTEMPTS",
                "[1, 2",
                "metrics.buckets.step_attempts (from CWE_METRICS__BUCKETS__STEP_ATTEMPTS): must be "
                "a list, in JSON or with commas",
            ),
            (
                "CWE_METRICS__BUCKETS__STEP_ATTEMPTS",
                "few",
                "metrics.buckets.step_attempts[0] (from CWE_METRICS__BUCKETS__STEP_ATTEMPTS): "
                "must be a number (it is 'few')",
            ),
            (
                "CWE_POLL__INTERVALL",
                "6s",
                "CWE_POLL__INTERVALL: unknown variable; did you mean CWE_POLL__INTERVAL?",
            ),
            (
                "CWE_POLL_INTERVAL",
                "6s",
                "CWE_POLL_INTERVAL: unknown variable; did you mean CWE_POLL__INTERVAL?",
            ),
            (
                "CWE_CONFIG_FILE",
                "other.yaml",
                "CWE_CONFIG_FILE: unknown variable; did you mean CWE_CONFIG__FILE?",
            ),
            (
                "cwe_config__file",
                "other.yaml",
                "cwe_config__file: unknown variable; did you mean CWE_CONFIG__FILE?",
            ),
            (
                "CWE_ACCOUNTS__0__API_TOKEN",
                "hidden",
                "CWE_ACCOUNTS__0__API_TOKEN: unknown variable; did you mean CWE_ACCOUNTS?",
            ),
            (
                "CWE_QQQ__ZZZ",
                "6s",
                "CWE_QQQ__ZZZ: unknown variable; write CWE_SECTION__KEY",
            ),
        ],
    )
    def test_a_problem_names_its_variable(
        self, command: Command, variable: str, value: str, problem: str
    ) -> None:
        assert command.environment(**{variable: value}).problems() == [problem]

    @pytest.mark.parametrize("variable", ["CWE_PORT", "CWE_SERVICE_HOST", "CWE_CONFIG__FILE"])
    def test_variables_that_kubernetes_makes_are_left_alone(
        self, command: Command, variable: str
    ) -> None:
        assert command.environment(**{variable: "x"}).load()

    def test_problems_of_all_sources_come_together(self, command: Command) -> None:
        command.file("poll: {interval: 1}").environment(CWE_LOG__LEVEL="loud", CWE_LOG__X="1")
        assert [m.partition(":")[0] for m in command.problems("--log.format=xml")] == [
            "poll.interval",
            "log.level (from CWE_LOG__LEVEL)",
            "log.format (from --log.format)",
            "CWE_LOG__X",
        ]


class TestCredentialsOfTheEnvironment:
    """The names that Cloudflare's own clients read, for accounts that give none themselves."""

    def account(self, command: Command, file: str = "", **variables: str) -> Any:
        command.file().environment(**variables)
        text = f'[{{"account_id": "a", {file} "workflows": [{{"name": "w", "discover": {{}}}}]}}]'
        return command.load(f"--accounts={text}").accounts[0]

    def test_a_token(self, command: Command) -> None:
        account = self.account(command, CLOUDFLARE_API_TOKEN="hidden")
        assert account.api_token.get_secret_value() == "hidden"
        assert "hidden" not in repr(account)

    def test_an_email_and_a_key(self, command: Command) -> None:
        account = self.account(command, CLOUDFLARE_EMAIL="a@b", CLOUDFLARE_API_KEY="hidden")
        assert (account.api_email, account.api_key.get_secret_value()) == ("a@b", "hidden")

    def test_what_the_account_says_itself_stands(self, command: Command) -> None:
        account = self.account(command, '"api_token": "own",', CLOUDFLARE_API_TOKEN="hidden")
        assert account.api_token.get_secret_value() == "own"

    @pytest.mark.parametrize("half", ["CLOUDFLARE_EMAIL", "CLOUDFLARE_API_KEY"])
    def test_half_of_a_credential_is_none(self, command: Command, half: str) -> None:
        with pytest.raises(ConfigError, match="no credential"):
            self.account(command, **{half: "hidden"})

    def test_the_line_end_of_a_file_that_became_a_secret_is_no_part_of_it(self) -> None:
        """`kubectl create secret --from-file` keeps it."""
        environ = {"CLOUDFLARE_EMAIL": "a@b\n", "CLOUDFLARE_API_KEY": "hidden\n"}
        [account] = config.load(None, {}, environ | {"CLOUDFLARE_ACCOUNT_ID": "acc\n"}).accounts
        assert (account.account_id, account.api_email) == ("acc", "a@b")
        assert account.api_key is not None
        assert account.api_key.get_secret_value() == "hidden"
