"""The command line: reads settings, then runs, checks, or looks once.

Exit status: 0 when all went well, 1 when it could not go on (a port in use, say) or, with
`--once`, when a look failed; 2 when the command line or the configuration is wrong.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from exporter import __version__, config, flags, logs, plan
from exporter.app import App
from exporter.mistakes import ConfigError
from exporter.settings import Settings, parse_address
from exporter.state.database import InUse
from exporter.web.server import listen

PROGRAM = "cloudflare-workflows-exporter"
DEFAULT_FILE = Path("config.yaml")

log = structlog.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options, given = _parse(sys.argv[1:] if argv is None else argv)
    path = options.config_file
    try:
        if path is None and DEFAULT_FILE.exists():
            path = DEFAULT_FILE
        settings = config.load(path, given, os.environ)
        logs.configure(settings.log.level, settings.log.format)
        if options.check_config:
            shard = App(settings).shard
            return 0 if _show(f"{plan.text(settings, shard)}\n".encode()) else 1
        return asyncio.run(_once(settings) if options.once else _run(settings))
    except ConfigError as error:
        source = path or "no configuration file (give one with --config.file)"
        print(f"{PROGRAM}: wrong configuration: {source}", file=sys.stderr)  # noqa: T201
        for mistake in error.mistakes:
            print(f"  {mistake}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Options of the command itself, and the settings given as flags."""
    parser = flags.Parser(
        prog=PROGRAM,
        usage="%(prog)s [--config.file=FILE] [--FLAG=VALUE ...]",
        allow_abbrev=False,
        description="Prometheus exporter for Cloudflare Workflows instances.",
        epilog="Every setting can be given in the file, in the environment (CWE_POLL__INTERVAL=5s) "
        "or as a flag (--poll.interval=5s); the later named wins.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        metavar="FILE",
        default=os.environ.get("CWE_CONFIG__FILE") or None,
        help=f"the configuration, in YAML (default: {DEFAULT_FILE}, if it is there)",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="check the configuration and exit"
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="look at everything once, print the metrics and exit",
    )
    flags.add(parser)
    options = parser.parse_args(argv)
    return options, flags.given(options)


async def _run(settings: Settings) -> int:
    host, port = parse_address(settings.web.listen_address)
    try:
        listener = listen(host, port)
    except OSError as error:
        log.error(
            "can't listen; choose another --web.listen-address",
            address=settings.web.listen_address,
            error=error.strerror or str(error),
        )
        return 1
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with listener:
        try:
            app = App(settings, state=settings.state.path)
        except InUse as error:
            log.error(
                "can't use the state file; stop the other, or give this one its own state.path",
                error=str(error),
            )
            return 1
        await app.run(listener, stop)
    return 0


async def _once(settings: Settings) -> int:
    app = App(settings)
    well = await app.once()
    body, _ = app.exposition.render()
    return 0 if _show(body) and well else 1


def _show(text: bytes) -> bool:
    """Writes what was asked for to standard output; whether that could be done."""
    if sys.stdout is None:
        problem = "it is closed"
    else:
        try:
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
            return True
        except OSError as error:
            # Python would try once more at exit, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                return False  # whoever reads has had enough, as in `--once | head`
            problem = error.strerror or str(error)
    print(f"{PROGRAM}: can't write to standard output: {problem}", file=sys.stderr)  # noqa: T201
    return False
