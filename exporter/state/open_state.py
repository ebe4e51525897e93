"""Opens the state where the settings say that it is, or in memory if its file can't be used.

PostgreSQL's modules are imported where they are used: they need the package's extra `postgres`.
"""

import structlog

from exporter.config.errors import ConfigError
from exporter.config.settings import Settings
from exporter.state.backend import Backend, DatabaseServer, Location, Unusable
from exporter.state.sqlite import Sqlite

log = structlog.get_logger(__name__)

_LONGEST = 5.0
"""Maximum seconds of an exchange with a database."""


def location_of(settings: Settings) -> Location:
    """Where the state is, by the settings.

    Raises:
        ConfigError: the settings of the database, or its package, can't be used.
    """
    if settings.state.url is None:
        return settings.state.path
    timeout = min(_LONGEST, settings.replica.lease / 3)
    server = DatabaseServer(settings.state.url, settings.state.password_file, timeout)
    try:
        from exporter.state.postgres_connection import validate  # noqa: PLC0415
    except ImportError as error:
        text = "needs the package's extra: pip install 'cloudflare-workflows-exporter[postgres]'"
        raise ConfigError(f"state.url: {text} ({error})") from None
    validate(server)
    return server


def opened(location: Location) -> Backend:
    """Opens the state; if its file can't be used, in memory.

    Raises:
        InUse: another exporter uses the file.
        Unreachable: the database can't be used.
    """
    if isinstance(location, DatabaseServer):
        from exporter.state.postgres import Postgres  # noqa: PLC0415

        return Postgres(location)
    try:
        state = Sqlite(location)
    except Unusable as error:
        log.error(
            "the state file can't be used; counting from zero, and nothing is persisted",
            path=str(location),
            error=str(error),
            advice="fix it, or name another file with state.path, and restart",
        )
        state = Sqlite(None)
        state.unusable = str(error)
    if state.set_aside is not None:
        log.error(
            "the state file is damaged; counting from zero",
            set_aside=str(state.set_aside),
            advice="keep it if its counts matter to you, delete it otherwise",
        )
    return state


def check(server: DatabaseServer) -> None:
    """Tries everything that is done with the database, without changing it.

    Raises:
        Unreachable: it can't be used, and why.
    """
    from exporter.state import postgres  # noqa: PLC0415

    postgres.check(server)
