"""The command with `state.url`: what is wrong is one line, without a password."""

from pathlib import Path

import pytest

from tests.cli.command import Command, Finished
from tests.cli.test_command import GOOD
from tests.e2e.daemon import environment, run
from tests.postgres import PostgresServer


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def started(command: Command, url: str, *flags: str) -> Finished:
    command.file(GOOD)
    done = command(f"--state.url={url}", "--web.listen-address=127.0.0.1:0", *flags)
    assert "s3cret" not in done.stdout + done.stderr
    return done


def test_without_the_database_it_does_not_start(command: Command) -> None:
    done = started(command, "postgresql://exporter:s3cret@127.0.0.1:1/exporter")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert 'msg="can\'t use the database of state.url"' in line
    assert "port 1 failed: Connection refused" in line
    assert "advice=" in line


@pytest.mark.postgres
def test_nor_with_the_wrong_password(command: Command, postgres: PostgresServer) -> None:
    url = f"postgresql://{postgres.new_user()}:s3cret@127.0.0.1:{postgres.port}/postgres"
    done = started(command, url)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "password authentication failed" in line


@pytest.mark.parametrize("flag", ["--check-config", "--log.level=info"])
def test_a_file_or_parameter_that_is_wrong_is_a_wrong_configuration(
    command: Command, flag: str
) -> None:
    """Reported with all else that is wrong, before the port is tried."""
    url = "postgresql://exporter@db/exporter?ssl_mode=require"
    wrong = "--web.config-file=web.yaml", "--state.password-file=none"
    done = started(command, url, flag, *wrong)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        '  state.url: invalid URI query parameter: "ssl_mode"',
        "  state.password_file: none: No such file or directory",
        "  web.yaml: can't be read: No such file or directory",
    ]


def test_an_empty_password_is_a_wrong_configuration(command: Command) -> None:
    command.file("\n", "password")
    url = "postgresql://exporter@127.0.0.1:1/exporter"
    done = started(command, url, "--check-config", "--state.password-file=password")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        "  state.password_file: password: is empty; a password is expected"
    ]


@pytest.mark.process
class TestWithoutTheExtra:
    """In processes that find no psycopg."""

    def run(self, folder: Path, *flags: str) -> Finished:
        (folder / "psycopg.py").write_text("raise ImportError(\"No module named 'psycopg'\")")
        (folder / "config.yaml").write_text(GOOD)
        return run(folder, *flags, environ={**environment(), "PYTHONPATH": str(folder)})

    @pytest.mark.parametrize("flag", ["--check-config", "--check-api", "--log.level=info"])
    def test_the_error_names_it(self, tmp_path: Path, flag: str) -> None:
        done = self.run(tmp_path, flag, "--state.url=postgresql://db/exporter")
        assert done.returncode == 2
        assert done.stderr.splitlines()[1:] == [
            "  state.url: needs the package's extra: pip install "
            "'cloudflare-workflows-exporter[postgres]' (No module named 'psycopg')"
        ]

    def test_nothing_else_needs_it(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "--check-config").returncode == 0
