"""The compose file names what there is, and its programs take their configurations."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from generate import ROOT
from tests.e2e.daemon import run
from tests.requires import requires_program

FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
class TestEachService:
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
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])

    def test_it_has_no_privileges(self, name: str) -> None:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


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
    done = run(tmp_path, f"--config.file={file}", "--check-config")
    assert done.returncode == 0, done.stderr


def test_prometheus_takes_its_configuration_and_scrapes_the_exporter(tmp_path: Path) -> None:
    promtool = requires_program("promtool", "prometheus")
    config = (FOLDER / "prometheus.yml").read_text()
    file = tmp_path / "prometheus.yml"
    file.write_text(config.replace("/etc/prometheus/", f"{ROOT}/alerts/"))
    done = subprocess.run([promtool, "check", "config", file], check=False, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = yaml.safe_load(config)["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["exporter:9734"]}]


def test_alertmanager_takes_its_configuration() -> None:
    amtool = requires_program("amtool", "prometheus-alertmanager")
    done = subprocess.run(
        [amtool, "check-config", FOLDER / "alertmanager.yml"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_has_the_data_source_that_the_alerts_name() -> None:
    sources = yaml.safe_load((FOLDER / "grafana" / "datasources" / "prometheus.yaml").read_text())
    alerts = yaml.safe_load((ROOT / "grafana/alerting/cloudflare-workflows.yaml").read_text())
    named = {r["data"][0]["datasourceUid"] for g in alerts["groups"] for r in g["rules"]}
    assert {source["uid"] for source in sources["datasources"]} == named
