"""The compose file names what there is, and its programs take their configurations."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
import pytest

from tests.alerts.test_end_to_end import from_the_page
from tests.cli.command import Command
from tests.e2e.daemon import configuration, daemon, environment
from tests.postgres import PostgresServer
from tests.prometheus import alertmanager, prometheus
from tests.requires import requires_program
from tests.waiting import DEADLINE, wait_until
from tools import ROOT

FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = msgspec.yaml.decode((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
class TestEachService:
    def test_it_has_a_health_check_on_the_port_that_it_publishes(self, name: str) -> None:
        check = SERVICES[name]["healthcheck"]["test"][-1]
        for port in SERVICES[name].get("ports", ()):
            assert f"http://127.0.0.1:{port.rpartition(':')[2]}/" in check

    def test_each_file_that_it_mounts_is_there_and_read_only(self, name: str) -> None:
        for volume in SERVICES[name]["volumes"]:
            source, _, mode = volume.split(":") if volume.count(":") == 2 else (volume, "", "")
            if source.startswith("."):
                assert (FOLDER / source).exists(), source
                assert mode == "ro"

    def test_each_volume_that_it_names_is_declared(self, name: str) -> None:
        volumes = [volume.split(":")[0] for volume in SERVICES[name]["volumes"]]
        assert {v for v in volumes if not v.startswith(".")} <= set(COMPOSE["volumes"])

    def test_its_image_is_built_here_or_has_a_version(self, name: str) -> None:
        image = SERVICES[name].get("image", "")
        tag = image.rpartition(":")[2]
        assert "build" in SERVICES[name] or any(c.isdigit() for c in tag)

    def test_it_is_reached_from_this_machine_only(self, name: str) -> None:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))

    def test_each_secret_that_it_reads_is_declared_and_out_of_git(self, name: str) -> None:
        ignored = (ROOT / ".gitignore").read_text().splitlines()
        for secret in SERVICES[name].get("secrets", ()):
            file = COMPOSE["secrets"][secret]["file"].removeprefix("./")
            assert f"/deploy/compose/{file}" in ignored

    def test_it_starts_again_with_the_machine(self, name: str) -> None:
        """`on-failure` starts none that ended well, as the exporter does when the machine stops."""
        assert SERVICES[name]["restart"] == "unless-stopped"

    def test_it_has_no_privileges(self, name: str) -> None:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.process
def test_compose_takes_it() -> None:
    schema = "--builtin-schema=vendor.compose-spec"
    command = [sys.executable, "-m", "check_jsonschema", schema, str(FOLDER / "compose.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_the_health_check_of_the_exporter_passes_while_it_listens(tmp_path: Path) -> None:
    kind, program, flag, code = SERVICES["exporter"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")

    def check(address: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, flag, code.replace("127.0.0.1:9734", address)]
        return subprocess.run(command, check=False, capture_output=True)

    configuration(tmp_path, "http://127.0.0.1:1", api_token="a-token")
    with daemon(tmp_path) as running:
        # Docker repeats it, too: on a busy machine a response may take longer than it waits.
        wait_until(lambda: check(running.address).returncode == 0, running.stderr)
        running.stop()
        assert check(running.address).returncode != 0


def test_the_exporter_builds_from_this_repository_with_a_read_only_root() -> None:
    exporter = SERVICES["exporter"]
    assert (FOLDER / exporter["build"] / "Dockerfile").exists()
    assert exporter["read_only"] is True


def test_the_exporter_takes_its_configuration(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token")
    config = (FOLDER / "config.yaml").read_text()
    assert "/run/secrets/cloudflare" in config
    file = tmp_path / "config.yaml"
    file.write_text(config.replace("/run/secrets/cloudflare", str(token)))
    done = Command(tmp_path)(f"--config.file={file}", "--check-config")
    assert done.returncode == 0, done.stderr


@pytest.mark.postgres
def test_its_replicas_share_their_database(postgres: PostgresServer, tmp_path: Path) -> None:
    """With the service's environment, on a server with its user."""
    environ = SERVICES["replica"]["environment"]
    secret = COMPOSE["secrets"]["database"]["file"].removeprefix("./")
    password = tmp_path / secret
    password.write_text("a-password\n")
    postgres.execute("CREATE ROLE exporter LOGIN PASSWORD 'a-password'")
    postgres.execute("CREATE DATABASE exporter OWNER exporter")
    url = environ["CWE_STATE__URL"].replace("@postgres/", f"@127.0.0.1:{postgres.port}/")
    assert environ["CWE_STATE__PASSWORD_FILE"] == "/run/secrets/database"
    running = environment(CWE_STATE__URL=url, CWE_STATE__PASSWORD_FILE=str(password))
    with ExitStack() as stack:
        replicas = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            configuration(folder, "http://127.0.0.1:1", api_token="a-token")
            replicas.append(stack.enter_context(daemon(folder, environ=running)))
        for replica in replicas:
            seen = "cloudflare_workflows_exporter_replicas 2"
            wait_until(lambda: seen in replica.metrics(), replica.stderr)  # noqa: B023


def test_replicas_run_in_place_of_the_exporter_with_a_file() -> None:
    """So that no instance is watched by both."""
    command = "docker compose --profile replicas up --build --detach --wait --scale exporter=0"
    assert command in (FOLDER / "README.md").read_text()
    chosen = {name for name, service in SERVICES.items() if service.get("profiles")}
    assert chosen == {"replica", "postgres"}
    assert SERVICES["replica"]["deploy"] == {"replicas": 2}
    assert "state:" not in str(SERVICES["replica"]["volumes"])


@pytest.mark.process
def test_prometheus_takes_its_configuration_and_scrapes_the_exporter(tmp_path: Path) -> None:
    promtool = requires_program("promtool", "prometheus")
    config = (FOLDER / "prometheus.yml").read_text()
    file = tmp_path / "prometheus.yml"
    file.write_text(config.replace("/etc/prometheus/", f"{ROOT}/alerts/"))
    done = subprocess.run([promtool, "check", "config", file], check=False, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = msgspec.yaml.decode(config)["scrape_configs"]
    assert job["dns_sd_configs"] == [{"names": ["exporter", "replica"], "type": "A", "port": 9734}]


@pytest.mark.prometheus
def test_prometheus_and_alertmanager_run_with_their_flags_and_answer_their_health_checks(
    tmp_path: Path,
) -> None:
    def flags(name: str, *without: str) -> list[str]:
        return [f for f in SERVICES[name]["command"] if not f.startswith(without)]

    def checked(name: str) -> str:
        url: str = SERVICES[name]["healthcheck"]["test"][-1]
        return urlsplit(url).path

    own = flags("prometheus", "--config.file", "--storage.tsdb.path")
    with prometheus(tmp_path, "", *own) as server:
        assert server.http.get(checked("prometheus")).is_success
        features = server.http.get("/api/v1/status/flags").json()["data"]
        assert features["enable-feature"] == "exemplar-storage"
        assert features["storage.tsdb.retention.time"] == "30d"
    assert flags("alertmanager", "--config.file", "--storage.path", "--cluster") == []
    with alertmanager(tmp_path, (FOLDER / "alertmanager.yml").read_text()) as address:
        url = f"http://{address}{checked('alertmanager')}"
        assert httpx.get(url, trust_env=False, timeout=DEADLINE).is_success


def test_alertmanager_inhibits_what_the_docs_do() -> None:
    """An error storm is one notification for each workflow."""
    own = msgspec.yaml.decode((FOLDER / "alertmanager.yml").read_text())
    documented = msgspec.yaml.decode(from_the_page("alertmanager.yml"))
    assert own["inhibit_rules"] == documented["inhibit_rules"]
    assert own["route"]["group_by"] == documented["route"]["group_by"]


@pytest.mark.process
def test_alertmanager_takes_its_configuration() -> None:
    amtool = requires_program("amtool", "prometheus-alertmanager")
    done = subprocess.run(
        [amtool, "check-config", FOLDER / "alertmanager.yml"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_has_the_data_source_that_the_alerts_name() -> None:
    sources = msgspec.yaml.decode((FOLDER / "grafana/datasources/prometheus.yaml").read_text())
    alerts = msgspec.yaml.decode((ROOT / "grafana/alerting/cloudflare-workflows.yaml").read_text())
    named = {r["data"][0]["datasourceUid"] for g in alerts["groups"] for r in g["rules"]}
    assert {source["uid"] for source in sources["datasources"]} == named


def test_an_exemplar_links_to_the_dashboard_of_its_instance() -> None:
    text = (FOLDER / "grafana" / "datasources" / "prometheus.yaml").read_text()
    (source,) = msgspec.yaml.decode(text)["datasources"]
    (link,) = source["jsonData"]["exemplarTraceIdDestinations"]
    url = urlsplit(link["url"])
    dashboards = [json.loads(p.read_text()) for p in (ROOT / "grafana/dashboards").glob("*.json")]
    (dashboard,) = (d for d in dashboards if url.path == f"/d/{d['uid']}")
    ((name, value),) = parse_qsl(url.query)
    assert name in {f"var-{v['name']}" for v in dashboard["templating"]["list"]}
    assert value == "$${__value.raw:percentencode}"
    assert link["name"] == "instance_id"
