"""Watches what the configuration names, or does what one of the modes says.

Every setting can be given in the file, in the environment (CWE_POLL__INTERVAL=5s) or as a flag
(--poll.interval=5s). A flag overrides the environment, and the environment overrides the file.
Credentials may also come from CLOUDFLARE_API_TOKEN, or from CLOUDFLARE_EMAIL and
CLOUDFLARE_API_KEY. With one of these and no file, every workflow of the account
CLOUDFLARE_ACCOUNT_ID is watched. docs/configuration.md explains every setting.

Exit status: 0 on success; 1 when the exporter could not start, a poll failed (--once) or something
is wrong (--check-api); 2 when the command line or the configuration is wrong.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from exporter import __version__, api_check, config_check, logs
from exporter.app import App
from exporter.clock import Clock
from exporter.cloudflare.account_lookup import find_account_id
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.resolver import Loop
from exporter.config import flags, without_configuration
from exporter.config import load as config
from exporter.config.accounts import ENV_ACCOUNT
from exporter.config.errors import ConfigError, collected
from exporter.config.reload import Reloader
from exporter.config.settings import Settings
from exporter.config.urls import parse_address
from exporter.state.backend import InUse, Location, Unreachable
from exporter.state.open_state import location_of
from exporter.web.server import listen

PROGRAM = "cloudflare-workflows-exporter"
DEFAULT_FILE = Path("config.yaml")
_MODES = {
    "--check-config": "check the configuration, print the requests that it needs, and exit",
    "--check-api": "check credentials, permissions, names, clock and budget with a few requests to "
    "the API, try the database, print what is wrong and how to fix it, and exit",
    "--once": "poll everything once, print the metrics, and exit",
}

log = structlog.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        options = parser().parse_args(argv)
        given, path = flags.given(options), options.config_file or _default_file()
        environ = dict(os.environ)
        load = partial(config.load, path, given, environ)
        settings = load(pipe=True)
        logs.configure(settings.log.level, settings.log.format)
        if options.check_config:
            _app(settings)
            report = "".join(f"{line}\n" for line in config_check.report(settings))
            return 0 if _print(report.encode()) else 1
        if options.check_api or options.once:
            # Without a handler, the first process of a container would ignore it.
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        with asyncio.Runner(loop_factory=Loop) as runner:
            if without_configuration.lacks_id(settings):
                environ[ENV_ACCOUNT] = runner.run(find_account_id(settings))
                settings = load()
            if path is None and without_configuration.is_watched(settings):
                log.info(
                    "no configuration file; watching every workflow of the account",
                    account=settings.accounts[0].label,
                    advice="to watch fewer, name workflows in config.yaml, or in the file that "
                    "--config.file names, and restart",
                )
            if options.check_api:
                return runner.run(_check_api(settings))
            # What is wrong with files that the configuration names shows before the port is tried,
            # and the port is had before the state is opened.
            run = _once(settings) if options.once else _run(_app(settings), settings, load, path)
            return runner.run(run)
    except ConfigError as error:
        source = path or "no configuration file"
        print(f"{PROGRAM}: wrong configuration: {source}", file=sys.stderr)  # noqa: T201
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)  # noqa: T201
        return 2
    except RequestFailed as failure:
        log.error(
            "failed to list the accounts of the credential",
            error=str(failure),
            advice="; ".join(
                filter(None, [failure.advice, f"with {ENV_ACCOUNT} set, no list is needed"])
            ),
        )
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> flags.Parser:
    """The parser of the command line, with every flag and its help."""
    made = flags.Parser(
        prog=PROGRAM,
        usage="%(prog)s [--config.file=FILE] [--FLAG=VALUE ...]",
        allow_abbrev=False,
        description="Prometheus exporter for Cloudflare Workflows instances.",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    made.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        metavar="FILE",
        default=os.environ.get("CWE_CONFIG__FILE") or None,
        help=f"configuration file, in YAML (default: {DEFAULT_FILE}, if it exists)",
    )
    modes = made.add_argument_group("modes", "Instead of watching, do one of these")
    mode = modes.add_mutually_exclusive_group()
    for flag, does in _MODES.items():
        mode.add_argument(flag, action="store_true", help=does)
    flags.add(made)
    return made


def _default_file() -> Path | None:
    """The file in the working folder, also one that can't be read; None where there is none."""
    try:
        DEFAULT_FILE.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # reported when it is read
    return DEFAULT_FILE


def _app(settings: Settings) -> App:
    """The exporter, with the state that the settings name.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[str] = []
    location: Location = None
    with collected(problems):
        location = location_of(settings)
    with collected(problems):
        app = App(settings, state=location)
    if problems:
        raise ConfigError(*problems)
    return app


async def _run(
    app: App, settings: Settings, load: Callable[[], Settings], path: Path | None
) -> int:
    try:
        listener = listen(*parse_address(settings.web.listen_address))
    except OSError as error:
        log.error(
            "can't listen; choose another --web.listen-address",
            address=settings.web.listen_address,
            error=error.strerror or str(error),
        )
        return 1

    async def apply(settings: Settings) -> None:
        await app.watched.apply(settings)
        logs.configure(settings.log.level, settings.log.format)

    reloader = Reloader(load, path, settings=settings, apply=apply, on_failure=app.reload_failed)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reloader.asked.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM})
    with listener:
        try:
            await app.run(listener, stop, reloader)
        except InUse as error:
            log.error(
                "can't use the state file; stop the other, or give this one its own state.path",
                error=str(error),
            )
            return 1
        except Unreachable as error:
            log.error(
                "can't use the database of state.url",
                error=str(error),
                advice="check the URL, the server and the user's permissions; then restart",
            )
            return 1
    return 0


async def _check_api(settings: Settings) -> int:
    passed = True
    async for finding in api_check.findings(settings, Clock()):
        passed = _print(f"{finding}\n".encode()) and passed and finding.verdict != "wrong"
    return 0 if passed else 1


async def _once(settings: Settings) -> int:
    app = App(settings)
    succeeded = await app.once()
    body, _ = app.exposition.render()
    return 0 if _print(body) and succeeded else 1


def _print(text: bytes) -> bool:
    """Writes to standard output; whether that succeeded."""
    if sys.stdout is None:
        problem = "it is closed"
    else:
        try:
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
            return True
        except OSError as error:
            # Otherwise Python tries again at exit, and prints an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                return False  # the reader has stopped, as in `--once | head`
            problem = error.strerror or str(error)
    print(f"{PROGRAM}: can't write to standard output: {problem}", file=sys.stderr)  # noqa: T201
    return False
