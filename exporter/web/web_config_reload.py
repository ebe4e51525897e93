"""The web configuration in force (TLS, users, headers): its file and certificates are read again
whenever they change."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from exporter.config.errors import ConfigError
from exporter.web import tls, web_config
from exporter.web.auth import Users

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Protection:
    """What one version of the file protects the endpoints with; by default, nothing.

    Attributes:
        context: TLS for new connections; None for plain HTTP.
        sans: Names of which a client's certificate must have one; None for any.
        users: Who may send requests; None for everyone.
        headers: Added to each response.
    """

    context: ssl.SSLContext | None = None
    sans: frozenset[str] | None = None
    users: Users | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class WebConfigReloader:
    """Reads the web configuration and, whenever one of its files has changed, reads it again.

    It checks the files each time that it is asked, which takes microseconds. So the next connection
    uses a new certificate. After an error, the last protection stays in force. It is also an error
    if the file no longer has TLS or users: that takes a restart.

    Args:
        file: The web configuration; None for no protection.

    Raises:
        ConfigError: The file can't be used.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._stamps: dict[Path, object] = {}
        self._current = Protection()
        if file is not None:
            self._current = self._read(file)

    def current(self) -> Protection:
        """The protection in force; the same object until a file changes."""
        if self._file is not None and any(_stamp(p) != was for p, was in self._stamps.items()):
            try:
                self._current = self._read(self._file)
                log.info("web configuration reloaded", file=str(self._file))
            except ConfigError as error:
                log.error(
                    "failed to reload the web configuration; the last one stays in force",
                    error=str(error),
                )
        return self._current

    def _read(self, file: Path) -> Protection:
        # Stamps are taken first. So a change while the files are read is noticed the next time, and
        # so is, after an error, a certificate that didn't exist yet.
        first, self._stamps = not self._stamps, {file: _stamp(file)}
        config = web_config.read(file, pipe=first)
        server = config.tls_server_config
        if server is not None:
            paths = tls.files(server, file.parent).values()
            self._stamps |= {path: _stamp(path) for path in paths}
        protection = Protection(
            context=tls.context(server, file) if server else None,
            sans=tls.allowed_sans(server) if server else None,
            users=Users(config.basic_auth_users) if config.basic_auth_users else None,
            headers=config.http_server_config.headers,
        )
        for key, before, after in (
            ("tls_server_config", self._current.context, protection.context),
            ("basic_auth_users", self._current.users, protection.users),
        ):
            if before and not after:
                raise ConfigError(f"{file}: {key} was removed; to serve without it, restart")
        return protection


def _stamp(path: Path) -> object:
    """Changes when the file or a symbolic link on the way to it does; None for no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
