"""The command: its options, its exit statuses, what goes to which output."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import __version__
from exporter.cli import PROGRAM
from exporter.config.settings import leaves
from simulator import Hang, Script, Simulator, error, serve_in_thread, steps
from tests.cli.command import Command
from tests.e2e.daemon import environment, run, signalled_at_its_start
from tests.state.test_command import powerless
from tests.waiting import DEADLINE, tied, wait_until


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


GOOD = """
accounts: [{account_id: acc, api_token: secret, workflows: [{name: orders, instances: [o-1]}]}]
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = Command(tmp_path_factory.mktemp("help"))("--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestHelp:
    def test_every_setting_is_a_flag_with_its_default(self, text: str) -> None:
        words = " ".join(text.split())
        for loc, _ in leaves():
            flag = "--" + ".".join(loc).replace("_", "-")
            after = words.partition(f"{flag} ")[2].partition(" --")[0]
            assert re.search(r"\((default: \S+|required)\)", after), loc

    def test_flags_are_grouped_by_section(self, text: str) -> None:
        groups = re.findall(r"^([a-z]+):$", text, re.MULTILINE)
        assert groups == [
            "options",
            "modes",
            "api",
            "accounts",
            "poll",
            "metrics",
            "state",
            "replica",
            "web",
            "config",
            "log",
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "--check-config",
            "--check-api",
            "--once",
            "--poll.interval DURATION",
            "--api.url URL",
            "--api.requests-per-5m N",
            "--api.allow-plain-http [true|false]",
            "--metrics.backfill [true|false|null]",
            "--metrics.instance-series all|unfinished|none",
            "--metrics.buckets.step-attempts N,N,...",
            "--metrics.step-names.rewrite JSON",
            "--accounts JSON",
            "--state.path FILE|null",
            "--web.listen-address HOST:PORT",
            "--web.config-file FILE|null",
            "--log.level debug|info|warning|error",
        ],
    )
    def test_what_a_flag_takes_is_readable(self, text: str, line: str) -> None:
        assert f" {line}" in text

    def test_version(self, command: Command) -> None:
        done = command("--version")
        assert (done.returncode, done.stdout) == (0, f"{PROGRAM} {__version__}\n")


class TestWrongFlags:
    @pytest.mark.parametrize(
        ("argv", "line"),
        [
            (["--log.levl=info"], "unknown flag --log.levl; did you mean --log.level?"),
            (["--api-token=hidden"], "unknown flag --api-token"),
            (["--qqq", "hidden"], "unknown flag --qqq"),
            (["config.yaml"], "unexpected 'config.yaml'; settings are given as --FLAG=VALUE"),
            (["--poll.interval"], "argument --poll.interval: expected one argument"),
        ],
    )  # fmt: skip
    def test_one_clear_line_without_the_value(
        self, command: Command, argv: list[str], line: str
    ) -> None:
        done = command(*argv)
        assert done.returncode == 2
        assert done.stderr == f"{PROGRAM}: {line}\nsee {PROGRAM} --help\n"
        assert done.stdout == ""

    def test_a_wrong_value_is_a_wrong_configuration(self, command: Command) -> None:
        command.file(GOOD)
        done = command("--poll.interval=3")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"{PROGRAM}: wrong configuration: config.yaml",
            "  poll.interval (from --poll.interval): not a duration; write it with its unit, as "
            "in 15s, 5m or 1h30m (it is '3')",
        ]


class TestWhereTheFileComesFrom:
    def test_config_yaml_when_nothing_is_said(self, command: Command) -> None:
        command.file(GOOD)
        assert command("--check-config").returncode == 0

    def test_the_environment(self, command: Command) -> None:
        command.file("wrong")
        path = command.file(GOOD, "other.yaml")
        assert command("--check-config", CWE_CONFIG__FILE=str(path)).returncode == 0

    def test_the_flag_beats_the_environment(self, command: Command) -> None:
        command.file(GOOD, "other.yaml")
        done = command("--config.file=other.yaml", "--check-config", CWE_CONFIG__FILE="none.yaml")
        assert done.returncode == 0

    def test_none_at_all(self, command: Command) -> None:
        done = command()
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"{PROGRAM}: wrong configuration: no configuration file",
            "  accounts: is missing; set CLOUDFLARE_API_TOKEN to watch a whole account, or name a "
            "file with --config.file",
        ]

    def test_one_that_leads_nowhere_is_not_none(self, command: Command) -> None:
        (command.folder / "config.yaml").symlink_to("none.yaml")
        done = command("--check-config", CLOUDFLARE_API_TOKEN="hidden", CLOUDFLARE_ACCOUNT_ID="acc")
        assert done.returncode == 2
        assert "  config.yaml: can't be read: No such file or directory" in done.stderr

    @pytest.mark.process
    def test_nor_is_one_in_a_folder_that_cannot_be_read(self, command: Command) -> None:
        """Such as root's, for another user."""
        command.file(GOOD)
        closed = 'chmod 0 . && "$@"; status=$?; chmod 700 .; exit $status'
        done = run(
            command.folder,
            environ=environment(CLOUDFLARE_API_TOKEN="hidden", CLOUDFLARE_ACCOUNT_ID="acc"),
            within=["sh", "-c", closed, "sh", *powerless()],
        )
        assert done.returncode == 2
        assert "  config.yaml: can't be read: Permission denied" in done.stderr

    def test_one_that_is_not_there(self, command: Command) -> None:
        done = command("--config.file=none.yaml")
        assert done.returncode == 2
        assert "  none.yaml: can't be read: No such file or directory" in done.stderr


class TestCheckConfig:
    def test_a_valid_one_prints_the_requests_it_needs(self, command: Command) -> None:
        command.file(GOOD)
        done = command("--check-config")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "configuration is valid",
            "acc: 1 configured instance(s) need up to 20 of 600 requests in 5 minutes",
        ]

    def test_what_freshness_to_expect_of_discovery(self, command: Command) -> None:
        command.file(GOOD.replace("instances: [o-1]", "discover: {}"))
        assert command("--check-config").stdout.splitlines()[2:] == [
            "acc: 1 workflow(s) to discover; expected status age (99%):",
            "  15s with 1,000 live instances",
            "  55s with 10,000 live instances, with series for 5,000 of them",
            "  4m30s with 50,000 live instances, with series for 5,000 of them",
            "  over 45s, steps of live ones are rarely fetched",
        ]

    def test_configured_instances_leave_half_of_the_budget_to_discovery(
        self, command: Command
    ) -> None:
        ids = [f"o-{n}" for n in range(50)]
        command.file(GOOD.replace("[o-1]", f"{ids}, discover: {{}}"))
        lines = command("--check-config").stdout.splitlines()
        assert lines[1].startswith("acc: 50 configured instance(s) need up to 1000 of 600 requests")
        assert [line.split()[0] for line in lines[3:6]] == ["26s", "1m50s", "9m"]

    def test_only_what_max_instances_leaves_has_series(self, command: Command) -> None:
        entries = "{name: orders, discover: {max_instances: 700}}, {name: b, discover: {}}"
        command.file(GOOD.replace("{name: orders, instances: [o-1]}", entries))
        lines = command("--check-config").stdout.splitlines()[3:6]
        assert [line.partition("instances")[2] for line in lines] == [
            "",
            ", with series for 5,700 of them",
            ", with series for 5,700 of them",
        ]
        command.file(GOOD.replace("name: orders, instances: [o-1]", "name: '*', discover: {}"))
        assert command("--check-config").stdout.splitlines()[5:7] == [
            "  4m30s with 50,000 live instances, with series for at most 5,000 of each workflow",
            "  up to 1.1s more with each further workflow that a glob matches",
        ]

    def test_the_budget_is_what_the_reserve_leaves(self, command: Command) -> None:
        command.file(GOOD)
        done = command("--check-config", "--api.requests-per-5m=1200")
        assert done.stdout.splitlines()[1:] == [
            "api.reserve leaves 20% of Cloudflare's 1200 requests in 5 minutes to other tools: the "
            "exporter sends at most 960, not 1200 (api.requests_per_5m)",
            "acc: 1 configured instance(s) need up to 20 of 960 requests in 5 minutes",
        ]
        done = command("--check-config", "--api.requests-per-5m=1200", "--api.reserve=0")
        assert done.stdout.splitlines()[1:] == [
            "acc: 1 configured instance(s) need up to 20 of 1200 requests in 5 minutes"
        ]
        local = "--api.url=http://127.0.0.1:8787/api"
        done = command("--check-config", "--api.requests-per-5m=5000", local)
        assert done.stdout.endswith(" of 5000 requests in 5 minutes\n")

    def test_accounts_with_one_credential_share_its_budget(self, command: Command) -> None:
        workflows = "workflows: [{name: orders, instances: [o-1]}]"
        command.file(
            f"accounts: [{{account_id: a, api_token: secret, {workflows}}},"
            f" {{account_id: b, api_token: other, {workflows}}},"
            f" {{account_id: c, api_token: secret, {workflows}}}]"
        )
        assert command("--check-config").stdout.splitlines()[1:] == [
            "a, c: 2 configured instance(s) need up to 40 of 600 requests in 5 minutes",
            "b: 1 configured instance(s) need up to 20 of 600 requests in 5 minutes",
        ]

    def test_more_requests_than_the_budget_are_pointed_out(self, command: Command) -> None:
        command.file(GOOD)
        done = command("--check-config", "--poll.interval=100ms")
        assert done.returncode == 0
        assert "of 600 requests in 5 minutes; over the limit: each is polled every" in done.stdout

    def test_files_of_secrets_are_checked_too(self, command: Command) -> None:
        text = GOOD.replace("api_token: secret", "api_token_file: token")
        command.file(text)
        done = command("--check-config")
        assert done.returncode == 2
        expected = "  accounts[0].api_token_file: token: No such file or directory"
        assert expected in done.stderr.splitlines()
        command.file("  \n", "token")
        assert "token is empty; an API token or key is expected" in command("--check-config").stderr
        command.file("secret\n", "token")
        assert command("--check-config").returncode == 0


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = Simulator()
    simulator.access.token("secret")
    simulator.world.account("acc").workflow("orders").create("o-1", Script(steps("a")))
    with serve_in_thread(simulator) as served:
        yield served


class TestOnce:
    def test_metrics_on_stdout_and_logs_on_stderr(
        self, command: Command, simulator: Simulator
    ) -> None:
        command.file(GOOD)
        url = f"--api.url={simulator.url}/accounts/{{account_id}}"
        done = command("--once", url, "--log.level=debug", "--state.path=null")
        assert done.returncode == 0
        assert done.stdout.startswith("# HELP ")
        assert 'cloudflare_workflow_up{account="acc",workflow="orders"} 1\n' in done.stdout
        assert "secret" not in done.stdout + done.stderr

    def test_a_failed_poll_is_status_1_and_still_shows_what_there_is(
        self, command: Command, simulator: Simulator
    ) -> None:
        command.file(GOOD)
        simulator.faults.add(error(403, 10000, "Authentication error"))
        url = f"--api.url={simulator.url}/accounts/{{account_id}}"
        done = command("--once", url, "--log.format=json", "--state.path=null")
        assert done.returncode == 1
        assert 'cloudflare_workflow_up{account="acc",workflow="orders"} 0\n' in done.stdout
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert [line["result"] for line in lines if line["level"] == "warning"] == ["unauthorized"]


@pytest.mark.process
class TestOutputThatIsCutShort:
    @pytest.fixture(autouse=True)
    def interruptible(self) -> Iterator[None]:
        """A shell has what runs in the background ignore SIGINT, and children inherit that."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def child(self, command: Command, simulator: Simulator, stdout: int) -> subprocess.Popen[str]:
        command.file(GOOD)
        url = f"--api.url={simulator.url}/accounts/{{account_id}}"
        return subprocess.Popen(
            tied(sys.executable, "-m", "exporter", "--once", url, "--state.path=null"),
            cwd=command.folder,
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_a_closed_pipe_prints_no_traceback(
        self, command: Command, simulator: Simulator
    ) -> None:
        """As in `--once | head`."""
        read, write = os.pipe()
        os.close(read)
        with self.child(command, simulator, write) as child:
            os.close(write)
            _, err = child.communicate(timeout=DEADLINE)
        assert (child.returncode, err) == (1, "")

    def redirected(
        self, command: Command, simulator: Simulator, flag: str, how: str
    ) -> subprocess.CompletedProcess[str]:
        """What it wrote to outputs that the shell redirects."""
        command.file(GOOD)
        url = f"--api.url={simulator.url}/accounts/{{account_id}}"
        shell = ["sh", "-c", f'exec "$@" {how}', "sh"]
        return run(command.folder, flag, url, "--state.path=null", within=shell)

    @pytest.mark.parametrize("flag", ["--once", "--check-config"])
    def test_an_output_that_takes_nothing_is_one_line_and_status_1(
        self, command: Command, simulator: Simulator, flag: str
    ) -> None:
        for how, why in ((">/dev/full", "No space left on device"), (">&-", "it is closed")):
            done = self.redirected(command, simulator, flag, how)
            assert done.returncode == 1
            assert done.stderr == f"{PROGRAM}: can't write to standard output: {why}\n"

    def test_without_a_standard_error_metrics_are_printed(
        self, command: Command, simulator: Simulator
    ) -> None:
        done = self.redirected(command, simulator, "--once", "2>&-")
        assert done.returncode == 0
        assert "cloudflare_workflow_up" in done.stdout

    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str
    )
    def test_interrupted_it_ends_without_a_traceback(
        self, command: Command, simulator: Simulator, number: signal.Signals, status: int
    ) -> None:
        """Also as the first process of a container, which a signal without a handler doesn't
        end."""
        simulator.faults.add(Hang())
        with self.child(command, simulator, subprocess.DEVNULL) as child:
            wait_until(lambda: simulator.requests.in_flight, lambda: "no request")
            child.send_signal(number)
            _, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == status
        assert "Traceback" not in err


@pytest.mark.process
def test_interrupted_at_its_start_it_ends_without_a_traceback(command: Command) -> None:
    # It waits there for what never comes, so that no signal comes too late.
    os.mkfifo(command.folder / "config.yaml")
    done = run(command.folder, "--once", within=signalled_at_its_start("INT"))
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("proxy", ["socks5://u:hidden@127.0.0.1:1080", "ftp://127.0.0.1"])
def test_a_proxy_that_cannot_be_used_is_a_wrong_configuration(command: Command, proxy: str) -> None:
    command.file(GOOD)
    done = command("--check-config", ALL_PROXY=proxy)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        "  HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: can't be used; a proxy must be a URL with http:// "
        "or https://, or be unset"
    ]


def test_certificates_that_cannot_be_used_are_a_wrong_configuration(
    command: Command, tmp_path: Path
) -> None:
    command.file(GOOD)
    text = tmp_path / "no-certificates.pem"
    text.write_text("none")
    for path in (text, tmp_path / "missing.pem"):
        done = command("--check-config", SSL_CERT_FILE=str(path))
        assert done.returncode == 2
        assert done.stderr.splitlines()[1:] == [
            f"  SSL_CERT_FILE={path}: can't be used; it must name a file of certificates in PEM, "
            "or be unset"
        ]


def test_a_log_of_tls_keys_that_cannot_be_written_prevents_no_start(command: Command) -> None:
    """A variable for debugging other programs."""
    command.file(GOOD)
    done = command("--check-config", SSLKEYLOGFILE=str(command.folder / "missing" / "keys"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_configuration_is_reported_before_the_port_is_tried(command: Command) -> None:
    """With every file that can't be used."""
    command.file(GOOD.replace("api_token: secret", "api_token_file: token"))
    command.file("basic_auth_users: {}", "web.yaml")
    flags = ("--web.config.file=web.yaml", "--state.path=state.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command(f"--web.listen-address={address}", *flags)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{PROGRAM}: wrong configuration: config.yaml",
        "  accounts[0].api_token_file: token: No such file or directory",
        "  web.yaml: basic_auth_users: must not be empty; to let everyone in, remove it",
    ]
    assert not (command.folder / "state.db").exists()


def test_a_port_in_use_is_one_line_and_status_1(command: Command) -> None:
    command.file(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command(f"--web.listen-address={address}", "--state.path=null")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "can't listen; choose another --web.listen-address" in line
    assert f"address={address}" in line
    assert "Address already in use" in line


@pytest.mark.process
class TestGarbageCollection:
    """Is off only while the command is imported."""

    SCRIPT = """
import gc
from exporter.__main__ import main
try:
    main(["--version"])
finally:
    print(gc.isenabled(), gc.get_freeze_count() > 0)
"""

    def test_is_on_as_the_command_runs(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", self.SCRIPT], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "True True"
