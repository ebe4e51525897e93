"""A real Prometheus scrapes an exporter that asks for certificates, and one that asks for
passwords."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from simulator import Simulator, serve_in_thread
from tests.e2e.daemon import Daemon, configuration, daemon, run
from tests.prometheus import Prometheus, prometheus
from tests.waiting import DEADLINE, wait_until
from tests.web.certificates import Authority
from tests.web.conftest import hashed

TLS = {"cert_file": "server.crt", "key_file": "server.key"}
MUTUAL = {
    "client_auth_type": "RequireAndVerifyClientCert",
    "client_ca_file": "ca.pem",
    "client_allowed_sans": ["prometheus.example.com"],
}
WEB: dict[str, dict[str, Any]] = {
    "certificates": {"tls_server_config": {**TLS, **MUTUAL}},
    "passwords": {
        "tls_server_config": TLS,
        "basic_auth_users": {"prometheus": hashed("right")},
        "http_server_config": {"headers": {"Strict-Transport-Security": "max-age=3600"}},
    },
}


class Setup(NamedTuple):
    authority: Authority
    folder: Path
    exporters: dict[str, Daemon]

    def http(self, name: str, **options: Any) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://{self.exporters[name].address}",
            trust_env=False,
            timeout=DEADLINE,
            **options,
        )


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Two exporters whose certificates are of one authority."""
    folder = tmp_path_factory.mktemp("web")
    authority = Authority(folder)
    authority.sign("server")
    authority.sign("prometheus", "prometheus.example.com")
    authority.sign("stranger", "stranger.example.com")
    simulator = Simulator()
    simulator.access.token("secret")
    with serve_in_thread(simulator) as served, ExitStack() as running:
        exporters = {}
        for name, said in WEB.items():
            home = folder / name
            home.mkdir()
            configuration(home, served.url + "/accounts/{account_id}", api_token="secret")
            web = folder / f"{name}.yaml"
            web.write_text(yaml.safe_dump(said))
            exporters[name] = running.enter_context(daemon(home, f"--web.config.file={web}"))
        yield Setup(authority, folder, exporters)


@pytest.fixture(scope="module")
def scraping(setup: Setup) -> Iterator[Prometheus]:
    """One job for each way of asking."""

    def tls(client: str = "") -> dict[str, str]:
        pair = {"cert_file": f"{client}.crt", "key_file": f"{client}.key"} if client else {}
        own = {key: str(setup.folder / file) for key, file in pair.items()}
        return {"ca_file": str(setup.authority.file), **own}

    def password(value: str) -> dict[str, dict[str, str]]:
        return {"basic_auth": {"username": "prometheus", "password": value}}

    jobs: dict[str, tuple[str, dict[str, Any]]] = {
        "right-certificate": ("certificates", {"tls_config": tls("prometheus")}),
        "wrong-certificate": ("certificates", {"tls_config": tls("stranger")}),
        "no-certificate": ("certificates", {"tls_config": tls()}),
        "right-password": ("passwords", {"tls_config": tls(), **password("right")}),
        "wrong-password": ("passwords", {"tls_config": tls(), **password("wrong")}),
        "no-password": ("passwords", {"tls_config": tls()}),
    }
    config = {
        # No scrape times out on a busy machine.
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
        "scrape_configs": [
            {
                "job_name": job,
                "scheme": "https",
                "static_configs": [{"targets": [setup.exporters[exporter].address]}],
                **access,
            }
            for job, (exporter, access) in jobs.items()
        ],
    }
    folder = setup.folder / "prometheus"
    folder.mkdir()
    with prometheus(folder, yaml.safe_dump(config)) as server:
        wait_until(lambda: len(server.query("up")) == len(jobs), lambda: str(server.query("up")))
        yield server


@pytest.mark.prometheus
class TestPrometheus:
    def test_it_gets_what_it_may_and_nothing_else(self, scraping: Prometheus) -> None:
        """On a busy machine a scrape may take longer than it waits: what it ever got counts."""

        def got(metric: str) -> set[str]:
            found = scraping.query(f"max_over_time({metric}[1h]) == 1")
            return {labels["job"] for labels, _ in found}

        allowed = {"right-certificate", "right-password"}
        wait_until(lambda: got("up") >= allowed, lambda: str(got("up")))
        assert got("up") == got("cloudflare_workflows_exporter_build_info") == allowed

    def test_a_renewed_certificate_is_served_and_scrapes_continue(
        self, scraping: Prometheus, setup: Setup
    ) -> None:
        exporter = setup.exporters["certificates"]
        client = setup.authority.client(
            setup.folder / "prometheus.crt", setup.folder / "prometheus.key"
        )

        def serial_number() -> object:
            host, _, port = exporter.address.rpartition(":")
            with (
                socket.create_connection((host, int(port))) as plain,
                client.wrap_socket(plain, server_hostname=host) as tls,
            ):
                certificate = tls.getpeercert()
                assert certificate is not None
                return certificate["serialNumber"]

        before = serial_number()
        setup.authority.sign("server")
        assert serial_number() != before
        query = f'timestamp(up{{job="right-certificate"}} == 1) > {time.time()}'
        wait_until(lambda: scraping.query(query), exporter.stderr)


@pytest.mark.process
class TestDaemon:
    def test_without_a_password_nothing_is_shown(self, setup: Setup) -> None:
        with setup.http("passwords", verify=setup.authority.client()) as http:
            for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/none"):
                response = http.get(path)
                assert (response.status_code, response.text) == (401, "Unauthorized\n")
                assert response.headers["strict-transport-security"] == "max-age=3600"
                assert http.get(path, auth=("prometheus", "right")).status_code != 401

    def test_a_bad_file_is_logged_once_and_changes_nothing(self, setup: Setup) -> None:
        exporter, web = setup.exporters["passwords"], setup.folder / "passwords.yaml"
        right = web.read_text()
        web.write_text(right.replace("basic_auth_users", "basic_auth_user"))
        with setup.http("passwords", verify=setup.authority.client()) as http:
            for _ in range(3):
                assert http.get("/metrics").status_code == 401
        web.write_text(right)
        assert exporter.stderr().count("basic_auth_user: unknown key") == 1

    def test_it_does_not_start_with_a_wrong_one(self, tmp_path: Path) -> None:
        configuration(tmp_path, "http://127.0.0.1:1/{account_id}", api_token="secret")
        web = tmp_path / "web.yaml"
        web.write_text("basic_auth_users: {prometheus: hidden}\nrate_limit: {}\n")
        for more in ([], ["--check-config"]):
            done = run(tmp_path, "--web.config.file=web.yaml", *more)
            assert done.returncode == 2
            assert "web.yaml: basic_auth_users.prometheus: must be a bcrypt hash" in done.stderr
            assert "web.yaml: rate_limit: unknown key; known here: tls_server_config" in done.stderr
            assert "hidden" not in done.stderr
