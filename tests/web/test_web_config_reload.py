"""Web configuration and certificates are read again when they change, and what can't be used
changes nothing."""

import os
from pathlib import Path
from threading import Thread

import pytest
import yaml
from structlog.testing import capture_logs

from exporter.config.errors import ConfigError
from exporter.web.web_config_reload import WebConfigReloader
from tests.web.certificates import Authority
from tests.web.conftest import Protect, hashed
from tests.web.serving import Served, serving
from tests.web.test_tls import REQUIRED, gets_in


async def serial_number(served: Served, authority: Authority) -> int:
    """That of the certificate with which a new connection is served."""
    async with served.connected(tls=authority.client()) as raw:
        number: str = raw.writer.get_extra_info("peercert")["serialNumber"]
        return int(number, 16)


class TestCertificates:
    async def test_a_new_one_serves_the_next_connection(
        self, protect: Protect, authority: Authority
    ) -> None:
        async with serving(protect(tls={})) as served:
            before = await serial_number(served, authority)
            assert await serial_number(served, authority) == before
            authority.sign("server")
            with capture_logs() as logs:
                assert await serial_number(served, authority) != before
                assert await gets_in(served, authority.client())
            assert [(e["log_level"], e["event"]) for e in logs] == [
                ("info", "web configuration reloaded")
            ]

    async def test_one_that_is_swapped_in_as_kubernetes_does_it(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        """The files are symbolic links through a folder that is one itself."""
        for version in ("one", "two"):
            (tmp_path / version).mkdir()
            for file in authority.sign("server"):
                file.rename(tmp_path / version / file.name)
        (tmp_path / "..data").symlink_to("one")
        for name in ("server.crt", "server.key"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        async with serving(protect(tls={})) as served:
            before = await serial_number(served, authority)
            (tmp_path / "..new").symlink_to("two")
            os.replace(tmp_path / "..new", tmp_path / "..data")
            assert await serial_number(served, authority) != before

    async def test_half_a_pair_leaves_the_old_one_in_force_until_it_is_whole(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        async with serving(protect(tls={})) as served:
            before = await serial_number(served, authority)
            old_key = (tmp_path / "server.key").read_bytes()
            _, key = authority.sign("server")
            new_key = key.read_bytes()
            key.write_bytes(old_key)
            with capture_logs() as logs:
                for _ in range(3):
                    assert await serial_number(served, authority) == before
            (entry,) = logs
            assert entry["log_level"] == "error"
            assert entry["error"] == (
                f"{tmp_path / 'web.yaml'}: tls_server_config: cert_file and key_file can't be used "
                "together: key values mismatch"
            )
            key.write_bytes(new_key)
            assert await serial_number(served, authority) != before

    async def test_an_authority_that_is_replaced_lets_in_its_own_clients_alone(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        other = Authority(tmp_path, "other")
        old = authority.client(*authority.sign("old", "prom"))
        new = authority.client(*other.sign("new", "prom"))
        async with serving(protect(tls=REQUIRED)) as served:
            assert await gets_in(served, old)
            assert not await gets_in(served, new)
            (tmp_path / "ca.pem").write_bytes(other.file.read_bytes())
            assert await gets_in(served, new)
            assert not await gets_in(served, old)

    async def test_a_connection_made_before_ends_with_its_next_response(
        self, protect: Protect, authority: Authority
    ) -> None:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        async with (
            serving(protect(tls={})) as served,
            served.connected(tls=authority.client()) as client,
        ):
            client.send(request)
            assert await client.status() == 200
            authority.sign("server")
            client.send(request)
            assert b"connection: close\r\n" in await client.rest()


class TestFile:
    async def test_users_come_and_go(self, protect: Protect) -> None:
        async with serving(protect(users={"alice": "one", "bob": "two"})) as served:
            assert (await served.get(auth=("bob", "two"))).status_code == 200
            protect(users={"alice": "new"})
            for auth, status in {
                ("alice", "new"): 200,
                ("alice", "one"): 401,
                ("bob", "two"): 401,
            }.items():
                assert (await served.get(auth=auth)).status_code == status

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "# nothing",
            "basic_auth_users: {alice: hidden}",
            "basic_auth_users: {alice: ",
            "basic_auth_users: {}",
            "basic_auth_users:",
            "http_server_config: {http2: false}",
        ],
    )
    async def test_a_bad_one_leaves_the_passwords_in_force_and_is_reported_once(
        self, protect: Protect, tmp_path: Path, content: str
    ) -> None:
        async with serving(protect(users={"alice": "word"})) as served:
            (tmp_path / "web.yaml").write_text(content)
            with capture_logs() as logs:
                for _ in range(3):
                    assert (await served.get()).status_code == 401
                    assert (await served.get(auth=("alice", "word"))).status_code == 200
            (entry,) = logs
            assert entry["event"] == (
                "failed to reload the web configuration; the last one stays in force"
            )
            assert f"{tmp_path}/web.yaml: " in entry["error"]
            assert "hidden" not in str(entry)

    async def test_without_the_file_it_stays_as_it_was(
        self, protect: Protect, tmp_path: Path
    ) -> None:
        async with serving(protect(users={"alice": "word"})) as served:
            (tmp_path / "web.yaml").unlink()
            assert (await served.get()).status_code == 401
            protect(users={"alice": "other"})
            assert (await served.get(auth=("alice", "other"))).status_code == 200

    async def test_tls_is_not_dropped_without_a_restart(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        async with serving(protect(tls={})) as served:
            (tmp_path / "web.yaml").write_text("http_server_config: {http2: false}")
            with capture_logs() as logs:
                assert await gets_in(served, authority.client())
            (entry,) = logs
            assert entry["error"].endswith(
                "tls_server_config was removed; to serve without it, restart"
            )

    async def test_a_certificate_that_comes_after_the_file_that_names_it(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        protecting = protect(users={"alice": "word"})
        async with serving(protecting) as served:
            said = {
                "tls_server_config": {"cert_file": "late.crt", "key_file": "late.key"},
                "basic_auth_users": {"alice": hashed("word")},
            }
            (tmp_path / "web.yaml").write_text(yaml.safe_dump(said))
            assert (await served.get(auth=("alice", "word"))).status_code == 200
            authority.sign("late")
            response = await served.get(tls=authority.client(), auth=("alice", "word"))
            assert response.status_code == 200


class TestPaths:
    def test_those_in_the_file_are_relative_to_its_folder(
        self, protect: Protect, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = authority.file.parent
        protect(tls={})
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
        assert WebConfigReloader(Path("../web.yaml")).current().context is not None

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="can't be read: No such file or directory"):
            WebConfigReloader(tmp_path / "none.yaml")

    def test_a_pipe_can_be_read_at_the_start_and_is_not_waited_for_later(
        self, tmp_path: Path
    ) -> None:
        os.mkfifo(pipe := tmp_path / "pipe")
        Thread(target=pipe.write_text, args=["http_server_config: {http2: false}"]).start()
        protecting = WebConfigReloader(pipe)
        os.utime(pipe, (1, 1))
        with capture_logs() as logs:
            protecting.current()
        assert logs[0]["error"] == f"{pipe}: can't be read: Not a regular file"

    def test_without_a_file_nothing_is_protected(self) -> None:
        now = WebConfigReloader().current()
        assert (now.context, now.users, now.sans, dict(now.headers)) == (None, None, None, {})
