"""What protects the endpoints: the web configuration, read again whenever it or a certificate
changes."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from exporter.config.errors import ConfigError
from exporter.web import tls
from exporter.web import web_config as config
from exporter.web.auth import Users

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Protection:
    """What one reading of the file gave; by default, nothing.

    Attributes:
        context: TLS for new connections; None for plain HTTP.
        sans: Names of which a client's certificate must have one; None for any.
        users: Who may ask; None for everyone.
        headers: Those that each answer gets.
    """

    context: ssl.SSLContext | None = None
    sans: frozenset[str] | None = None
    users: Users | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class WebConfigReloader:
    """The protection in force.

    It looks at the files each time that it is asked, which costs microseconds, so that a new
    certificate serves the next connection. A file that can't be used leaves the last in force, and
    so does one without the TLS or the users that were there: to drop those takes a restart.

    Args:
        file: The web configuration; None for no protection.

    Raises:
        ConfigError: it can't be used.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._seen: dict[Path, object] = {}
        self._now = Protection()
        if file is not None:
            self._now = self._read(file)

    def now(self) -> Protection:
        """What is in force at this moment; the same object as long as nothing changes."""
        if self._file is not None and any(_stamp(p) != was for p, was in self._seen.items()):
            try:
                self._now = self._read(self._file)
                log.info("the web configuration was read again", file=str(self._file))
            except ConfigError as error:
                log.error(
                    "the web configuration can't be used; the last one stays in force",
                    error=str(error),
                )
        return self._now

    def _read(self, file: Path) -> Protection:
        # Before they are read: what changes meanwhile is seen the next time. And even if they
        # can't be used: a certificate that isn't there yet is looked for.
        self._seen = {file: _stamp(file)}
        said, folder = config.read(file), file.parent
        server = said.tls_server_config
        if server is not None:
            self._seen |= {path: _stamp(path) for path in tls.files(server, folder).values()}
        made = Protection(
            context=tls.context(server, folder) if server else None,
            sans=tls.allowed_sans(server) if server else None,
            users=Users(said.basic_auth_users) if said.basic_auth_users else None,
            headers=said.http_server_config.headers,
        )
        for key, was, now in (
            ("tls_server_config", self._now.context, made.context),
            ("basic_auth_users", self._now.users, made.users),
        ):
            if was and not now:
                raise ConfigError([f"{file}: {key} is gone; to serve without it, restart"])
        return made


def _stamp(path: Path) -> object:
    """Changes when the file does, a symbolic link on the way to it included; None: not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
