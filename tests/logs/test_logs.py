"""Logs: one line an event on standard error, in logfmt or JSON, whoever logs."""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from exporter import logs
from exporter.cloudflare.credentials import Credential
from tests.logs.restored import restored_logging


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with restored_logging():
        yield


def error_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


class TestFormats:
    def test_logfmt(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Time, level, logger and message first; values with spaces in quotes."""
        logs.configure("info", "logfmt")
        structlog.get_logger("exporter.x").warning("it broke", workflow="orders", error="no way")
        (line,) = error_lines(capsys)
        time, _, rest = line.partition(" ")
        assert time.startswith("ts=20")
        assert time.endswith("Z")
        assert rest == (
            'level=warning logger=exporter.x msg="it broke" workflow=orders error="no way"'
        )

    def test_an_empty_field_is_left_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Such as the advice about a failure that has none."""
        logs.configure("info", "logfmt")
        structlog.get_logger("exporter.x").warning("it broke", advice="", count=0)
        (line,) = error_lines(capsys)
        assert line.endswith(' msg="it broke" count=0')

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.configure("info", "json")
        structlog.get_logger("exporter.x").info("hello", count=3, text='a "b"\n')
        (line,) = error_lines(capsys)
        event = json.loads(line)
        assert event.pop("ts").endswith("Z")
        assert event == {
            "level": "info",
            "logger": "exporter.x",
            "msg": "hello",
            "count": 3,
            "text": 'a "b"\n',
        }

    @pytest.mark.parametrize("fmt", ["logfmt", "json"])
    def test_control_characters_are_escaped(
        self, fmt: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What an upstream says can't steer a terminal, nor begin a line of its own."""
        logs.configure("info", "json" if fmt == "json" else "logfmt")
        structlog.get_logger("x").info("bell \x07", error="\x1b[31mred\x9b\r\nlevel=error")
        (line,) = error_lines(capsys)
        assert line.isprintable()
        assert "\\x1b[31mred" in line

    @pytest.mark.parametrize("key", ["a b", "c=d", 'e"f', "g\nh"])
    def test_odd_keys_from_libraries_stay_on_one_line(
        self, key: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logs.configure("info", "json")
        structlog.get_logger("x").info("odd", **{key: 1})
        (line,) = error_lines(capsys)
        assert json.loads(line)[key] == 1


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "shown"),
        [
            ("debug", ["debug", "info", "warning", "error"]),
            ("info", ["info", "warning", "error"]),
            ("warning", ["warning", "error"]),
            ("error", ["error"]),
        ],
    )
    def test_what_is_below_is_left_out(
        self, level: str, shown: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        logs.configure(level, "json")
        for each in ("debug", "info", "warning", "error"):
            getattr(structlog.get_logger("x"), each)("said")
        assert [json.loads(line)["level"] for line in error_lines(capsys)] == shown


class TestLibraries:
    def test_their_logs_come_in_the_same_format(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.configure("info", "json")
        logging.getLogger("asyncio").warning("port %d", 80)
        (line,) = error_lines(capsys)
        event = json.loads(line)
        assert (event["logger"], event["level"], event["msg"]) == (
            "asyncio",
            "warning",
            "port 80",
        )

    @pytest.mark.parametrize("name", ["httpx", "httpcore", "asyncio"])
    def test_they_say_only_what_is_wrong(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Even at debug: httpcore would log headers there, the credential among them."""
        logs.configure("debug", "logfmt")
        logger = logging.getLogger(name)
        logger.debug("detail")
        logger.info("chatter")
        assert error_lines(capsys) == []
        logger.warning("problem")
        assert len(error_lines(capsys)) == 1

    def test_malformed_requests_fill_no_log(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.configure("debug", "logfmt")
        logging.getLogger("uvicorn.http").warning("Invalid HTTP request received.")
        assert error_lines(capsys) == []
        logging.getLogger("uvicorn.http").error("Exception in ASGI application")
        assert len(error_lines(capsys)) == 1

    def test_the_scheduler_does_not_warn_of_late_rounds(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logs.configure("debug", "logfmt")
        logging.getLogger("apscheduler.scheduler").warning("missed")
        assert error_lines(capsys) == []

    def test_they_are_no_louder_than_the_rest(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.configure("error", "logfmt")
        logging.getLogger("httpx").warning("problem")
        assert error_lines(capsys) == []


class TestExceptions:
    @pytest.mark.parametrize("fmt", ["logfmt", "json"])
    def test_a_traceback_is_one_line_without_values_of_variables(
        self, fmt: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logs.configure("info", "json" if fmt == "json" else "logfmt")
        password = "hid" + "den"

        def fail(secret: str) -> None:
            raise RuntimeError("broken")

        try:
            fail(password)
        except RuntimeError:
            structlog.get_logger("x").exception("failed")
        (line,) = error_lines(capsys)
        assert "RuntimeError: broken" in line
        assert "in fail" in line
        assert password not in line

    @pytest.mark.parametrize("fmt", ["logfmt", "json"])
    def test_no_traceback_shows_a_credential(
        self, fmt: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Not even one that the message of a library's exception repeats."""
        logs.configure("info", "json" if fmt == "json" else "logfmt")
        token, key = "t0ken" * 8, "k3y" * 12
        hidden = Credential(SecretStr(token)), Credential(SecretStr(key), email="a@b")
        for credential in hidden:
            logs.scrubbers.add(credential)
        try:
            try:
                raise ValueError(f"Illegal header value 'Bearer {token}'")
            except ValueError as error:
                raise RuntimeError(f"with {key}") from error
        except RuntimeError as error:
            structlog.get_logger("x").exception("failed", error=error, text=f"{token}!")
            logging.getLogger("asyncio").exception("task died: %s", key)
        ours, theirs = error_lines(capsys)
        assert "Illegal header value 'Bearer ***'" in ours
        assert "RuntimeError: with ***" in ours
        assert "task died: ***" in theirs
        assert token not in ours + theirs
        assert key not in ours + theirs

    def test_those_of_libraries_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.configure("info", "logfmt")
        try:
            int("x".strip())
        except ValueError:
            logging.getLogger("uvicorn.http").exception("failed")
        (line,) = error_lines(capsys)
        assert "ValueError" in line

    async def test_those_that_asyncio_finds_in_tasks(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logs.configure("info", "logfmt")
        asyncio.get_running_loop().call_exception_handler({"message": "task died\x1b"})
        (line,) = error_lines(capsys)
        assert "task died" in line
        assert "\x1b" not in line


@pytest.mark.parametrize("level", ["info", "error"])
def test_dropped_lines_are_reported_at_each_level(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Once somebody reads the log again."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as log, open(writing, "w", buffering=1) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        logs.configure(level, "json")
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writing, b"\n" * 4096):
                pass
        structlog.get_logger("exporter.x").error("unread")
        log.read(1 << 20)
        structlog.get_logger("exporter.x").error("read")
        events = [json.loads(line) for line in log.read(1 << 20).splitlines()]
    assert [(event["msg"], event.get("lines")) for event in events] == [
        ("nobody read the log; lines were dropped", 1),
        ("read", None),
    ]
