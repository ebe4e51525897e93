from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
import yaml

from exporter.web.web_config_reload import WebConfigReloader
from tests.web.certificates import Authority


def hashed(password: str) -> str:
    """At the least cost that bcrypt has."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


Protect = Callable[..., WebConfigReloader]


@pytest.fixture
def protect(tmp_path: Path) -> Protect:
    """Writes `web.yaml` and reads it; given are its sections, `users` as names to passwords."""

    def made(
        *,
        tls: dict[str, object] | None = None,
        users: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> WebConfigReloader:
        said: dict[str, object] = {}
        if tls is not None:
            pair = {"cert_file": "server.crt", "key_file": "server.key"}
            said["tls_server_config"] = {**pair, **tls}
        if users is not None:
            said["basic_auth_users"] = {name: hashed(word) for name, word in users.items()}
        if headers is not None:
            said["http_server_config"] = {"headers": headers}
        file = tmp_path / "web.yaml"
        file.write_text(yaml.safe_dump(said))
        return WebConfigReloader(file)

    return made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that signed `server.crt`."""
    authority = Authority(tmp_path)
    authority.sign("server")
    return authority
