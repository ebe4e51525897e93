"""Opens the state where the settings say that it is.

PostgreSQL's modules are imported where they are used: they need the package's extra `postgres`.
"""

from pathlib import Path

from exporter.config.errors import ConfigError
from exporter.config.settings import Settings
from exporter.state.backend import Backend, DatabaseServer, Location
from exporter.state.sqlite import Sqlite

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
    """Opens the state.

    Raises:
        InUse: another exporter uses the file.
        Unusable: the file can't be used.
        Unreachable: the database can't.
    """
    if location is None or isinstance(location, Path):
        return Sqlite(location)
    from exporter.state.postgres import Postgres  # noqa: PLC0415

    return Postgres(location)


def check(server: DatabaseServer) -> None:
    """Tries everything that is done with the database, without changing it.

    Raises:
        Unreachable: it can't be used, and why.
    """
    from exporter.state import postgres  # noqa: PLC0415

    postgres.check(server)
