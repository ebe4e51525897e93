"""TLS: who can connect, and with what."""

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.config.errors import ConfigError
from tests.web.certificates import Authority
from tests.web.conftest import Protect
from tests.web.serving import Served, serving
from tests.web.test_server import has_ipv6

REQUIRED: dict[str, object] = {
    "client_auth_type": "RequireAndVerifyClientCert",
    "client_ca_file": "ca.pem",
}


async def gets_in(served: Served, tls: ssl.SSLContext) -> bool:
    try:
        return (await served.get(tls=tls)).text == "hello"
    except (httpx.TransportError, ssl.SSLError):
        return False


class TestServer:
    async def test_it_speaks_https_and_no_http(
        self, protect: Protect, authority: Authority
    ) -> None:
        async with serving(protect(tls={})) as served:
            assert await gets_in(served, authority.client())
            with pytest.raises(httpx.TransportError):
                await served.get()

    async def test_over_ipv6(self, protect: Protect, authority: Authority) -> None:
        if not has_ipv6():
            pytest.skip("this machine has no IPv6")
        async with serving(protect(tls={}), host="::1") as served:
            assert await gets_in(served, authority.client())

    async def test_a_client_that_knows_another_authority_does_not_trust_it(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        async with serving(protect(tls={})) as served:
            assert await gets_in(served, authority.client())
            assert not await gets_in(served, Authority(tmp_path, "other").client())

    @pytest.mark.parametrize(
        ("settings", "offered", "served_with"),
        [
            ({}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "TLSv1.2"),
            ({}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), "TLSv1.3"),
            (
                {"min_version": "TLS13"},
                (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
                None,
            ),
            (
                {"max_version": "TLS12"},
                (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
                "TLSv1.2",
            ),
            (
                {"max_version": "TLS12"},
                (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
                None,
            ),
        ],
    )
    async def test_versions(
        self,
        protect: Protect,
        authority: Authority,
        settings: dict[str, object],
        offered: tuple[ssl.TLSVersion, ssl.TLSVersion],
        served_with: str | None,
    ) -> None:
        client = authority.client()
        client.minimum_version, client.maximum_version = offered
        async with serving(protect(tls=settings)) as served:
            if served_with is None:
                assert not await gets_in(served, client)
                return
            async with served.connected(tls=client) as raw:
                assert raw.writer.get_extra_info("ssl_object").version() == served_with

    @pytest.mark.parametrize("prefer", [True, False])
    async def test_cipher_suites_in_the_order_of_whom_it_is_left_to(
        self, protect: Protect, authority: Authority, prefer: bool
    ) -> None:
        """trustme's keys are ECDSA ones."""
        ours = ["AES_256_GCM_SHA384", "AES_128_GCM_SHA256"]
        suites = [f"TLS_ECDHE_ECDSA_WITH_{suite}" for suite in ours]
        client = authority.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
        settings = {"cipher_suites": suites, "prefer_server_cipher_suites": prefer}
        async with serving(protect(tls=settings)) as served:
            async with served.connected(tls=client) as raw:
                used = raw.writer.get_extra_info("cipher")[0]
            assert used == f"ECDHE-ECDSA-AES{'256-GCM-SHA384' if prefer else '128-GCM-SHA256'}"
            client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
            assert not await gets_in(served, client)

    async def test_headers_of_the_file_are_in_every_response(self, protect: Protect) -> None:
        """In place of the exporter's own of that name."""
        headers = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "deny"}
        async with serving(protect(headers=headers, users={"alice": "x"})) as served:
            for auth in (None, ("alice", "x")):
                response = await served.get(auth=auth)
                assert response.headers["x-frame-options"] == "deny"
                assert response.headers.get_list("x-content-type-options") == ["nosniff"]


class TestClients:
    async def test_one_with_a_certificate_of_the_authority_gets_in(
        self, protect: Protect, authority: Authority
    ) -> None:
        async with serving(protect(tls=REQUIRED)) as served:
            assert await gets_in(served, authority.client(*authority.sign("client", "prom")))

    async def test_one_without_does_not(self, protect: Protect, authority: Authority) -> None:
        async with serving(protect(tls=REQUIRED)) as served:
            assert not await gets_in(served, authority.client())

    async def test_nor_one_of_another_authority(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        other = Authority(tmp_path, "other")
        async with serving(protect(tls=REQUIRED)) as served:
            assert not await gets_in(served, authority.client(*other.sign("client", "prom")))

    async def test_where_certificates_are_optional_a_wrong_one_is_still_wrong(
        self, protect: Protect, authority: Authority, tmp_path: Path
    ) -> None:
        optional = {**REQUIRED, "client_auth_type": "VerifyClientCertIfGiven"}
        other = Authority(tmp_path, "other")
        async with serving(protect(tls=optional)) as served:
            assert await gets_in(served, authority.client())
            assert await gets_in(served, authority.client(*authority.sign("client", "prom")))
            assert not await gets_in(served, authority.client(*other.sign("client", "prom")))

    @pytest.mark.parametrize(
        ("allowed", "name", "admitted"),
        [
            ("prom.example.com", "prom.example.com", True),
            ("prom.example.com", "other.example.com", False),
            ("*.example.com", "prom.example.com", False),
            ("10.0.0.1", "10.0.0.1", True),
            ("fd00::1", "fd00::1", True),
            ("fd00:0:0::0001", "fd00::1", True),
            ("10.0.0.1", "10.0.0.2", False),
            ("sre@example.com", "sre@example.com", True),
            ("PROM.example.com", "prom.example.com", False),
        ],
    )
    async def test_names(
        self, protect: Protect, authority: Authority, allowed: str, name: str, admitted: bool
    ) -> None:
        """A client's certificate must have one that is exactly an allowed one."""
        names: dict[str, Any] = {**REQUIRED, "client_allowed_sans": ["no.one", allowed]}
        async with serving(protect(tls=names)) as served:
            client = authority.client(*authority.sign("client", name))
            assert await gets_in(served, client) == admitted


class TestFiles:
    @pytest.mark.parametrize(
        ("file", "key"),
        [("server.crt", "cert_file"), ("server.key", "key_file"), ("ca.pem", "client_ca_file")],
    )
    def test_one_that_is_missing_or_a_device_is_named(
        self, protect: Protect, authority: Authority, file: str, key: str
    ) -> None:
        path = authority.file.parent / file
        where = f"{path.with_name('web.yaml')}: tls_server_config.{key}: {path}"
        path.unlink()
        with pytest.raises(ConfigError) as caught:
            protect(tls=REQUIRED)
        assert caught.value.problems == [f"{where}: can't be read: No such file or directory"]
        path.symlink_to("/dev/null")
        with pytest.raises(ConfigError) as caught:
            protect(tls=REQUIRED)
        assert caught.value.problems == [f"{where}: can't be read: Not a regular file"]

    @pytest.mark.parametrize("file", ["server.crt", "server.key"])
    def test_one_that_holds_something_else(
        self, protect: Protect, authority: Authority, file: str
    ) -> None:
        (authority.file.parent / file).write_text("hidden")
        with pytest.raises(ConfigError) as caught:
            protect(tls={})
        assert caught.value.problems == [
            f"{authority.file.with_name('web.yaml')}: tls_server_config: cert_file and key_file "
            "can't be used together: "
            "cert_file must be a certificate and key_file its key, both in PEM"
        ]

    def test_one_in_place_of_the_other(self, protect: Protect, authority: Authority) -> None:
        certificate, key = map(str, authority.sign("server"))
        with pytest.raises(ConfigError, match="cert_file must be a certificate and key_file its"):
            protect(tls={"cert_file": key, "key_file": certificate})

    def test_the_key_of_another_certificate(self, protect: Protect, authority: Authority) -> None:
        _, key = authority.sign("other")
        with pytest.raises(ConfigError, match="can't be used together: key values mismatch"):
            protect(tls={"key_file": str(key)})

    def test_an_encrypted_key_asks_nobody_for_its_password(
        self, protect: Protect, authority: Authority
    ) -> None:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow

        path = authority.file.parent / "server.key"
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"hidden"),
            )
        )
        with pytest.raises(ConfigError, match="the key is encrypted; store it without a password"):
            protect(tls={})

    def test_an_authority_that_is_none(self, protect: Protect, authority: Authority) -> None:
        authority.file.write_text("")
        with pytest.raises(ConfigError, match=r"ca\.pem: holds no certificates"):
            protect(tls=REQUIRED)
