"""Reloading the command as people do: by signal, over HTTP, and by swapping a mounted file."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator import ManualClock, Script, Simulator, Wait, serve_in_thread, steps
from tests.e2e.daemon import Daemon, configuration, daemon, signalled_at_its_start
from tests.e2e.scrape import samples, value
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow(4)]

TOKEN = "S3cr3t-t0ken-of-the-tests"
LOADED = "cloudflare_workflows_exporter_config_last_reload_successful"
LOADED_AT = "cloudflare_workflows_exporter_config_last_reload_success_timestamp_seconds"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The API, with instances that wait for an event."""
    clock = ManualClock()
    simulator = Simulator(clock=clock)
    simulator.access.token(TOKEN)
    orders = simulator.world.account("acc").workflow("orders")
    for name in ("order-1", "order-2", "order-3"):
        orders.create(name, Script((*steps("pay"), Wait("approval"))), at=clock() - 60)
    with serve_in_thread(simulator) as served:
        yield served


class File:
    """The configuration of the exporter."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        url = simulator.url + "/accounts/{account_id}"
        self.path = configuration(folder, url, api_token=TOKEN)
        self.tree: dict[str, Any] = json.loads(self.path.read_text())

    def watch(self, *ids: str, **sections: Any) -> str:
        """Its text when it watches these instances, under further sections."""
        tree = json.loads(json.dumps(self.tree)) | sections
        tree["accounts"][0]["workflows"] = [{"name": "orders", "instances": list(ids)}]
        return json.dumps(tree)


@pytest.fixture
def file(tmp_path: Path, simulator: Simulator) -> File:
    return File(tmp_path, simulator)


def watched(running: Daemon) -> set[str]:
    """Instances that have series."""
    pattern = r'^cloudflare_workflow_instance_info{.*instance_id="([^"]+)"'
    return set(re.findall(pattern, running.metrics(), re.MULTILINE))


def metric(running: Daemon, name: str) -> float:
    return value(samples(running.metrics()), name)


def reloads(running: Daemon) -> int:
    return running.stderr().count("configuration reloaded")


def wait_until_reloaded(running: Daemon, times: int = 1) -> None:
    """Until this many reloads since the start have ended: the log reports each last, when all that
    it changes at once is shown."""
    wait_until(lambda: reloads(running) >= times, running.stderr)
    assert reloads(running) == times


class TestSignal:
    def test_sighup_loads_the_file(self, tmp_path: Path, file: File) -> None:
        with daemon(tmp_path) as running:
            running.wait_until_ready()
            assert watched(running) == {"order-1"}
            before = metric(running, LOADED_AT)
            file.path.write_text(file.watch("order-1", "order-2"))
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: watched(running) == {"order-1", "order-2"}, running.stderr)
            wait_until_reloaded(running)
            file.path.write_text(file.watch("order-2"))
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: watched(running) == {"order-2"}, running.stderr)
            wait_until_reloaded(running, 2)
            assert metric(running, LOADED) == 1
            assert metric(running, LOADED_AT) > before
            assert running.stop() == 0

    @pytest.mark.usefixtures("file")
    def test_one_during_the_start_reloads_after_it(self, tmp_path: Path) -> None:
        """As `systemctl start` and `systemctl reload` right after it."""
        with daemon(tmp_path, within=signalled_at_its_start("HUP")) as running:
            wait_until_reloaded(running)
            assert running.stop() == 0

    def test_flags_and_the_environment_keep_their_rank(self, tmp_path: Path, file: File) -> None:
        with daemon(tmp_path, "--metrics.instance-series=none") as running:
            running.wait_until_ready()
            text = file.watch("order-1", metrics={"instance_series": "all"})
            file.path.write_text(text)
            running.process.send_signal(signal.SIGHUP)
            wait_until_reloaded(running)
            assert watched(running) == set()

    def test_what_takes_a_restart_is_reported_and_the_rest_takes_effect(
        self, tmp_path: Path, file: File
    ) -> None:
        with daemon(tmp_path) as running:
            running.wait_until_ready()
            state = {"path": str(tmp_path / "other.db")}
            text = file.watch("order-1", "order-2", state=state, log={"format": "json"})
            file.path.write_text(text)
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: watched(running) == {"order-1", "order-2"}, running.stderr)
            wait_until(lambda: "settings" in running.stderr(), running.stderr)
            (line,) = [line for line in running.stderr().splitlines() if "restart" in line]
            assert json.loads(line)["settings"] == "state.path"
            assert not (tmp_path / "other.db").exists()
            assert metric(running, LOADED) == 1


class TestHttp:
    @pytest.mark.usefixtures("file")
    def test_it_is_forbidden_unless_enabled(self, tmp_path: Path) -> None:
        with daemon(tmp_path) as running:
            response = running.http.post("/-/reload")
            assert response.status_code == 403
            assert "--web.enable-lifecycle" in response.text
            assert running.http.get("/-/reload").status_code == 405
            assert reloads(running) == 0

    def test_it_responds_once_the_configuration_is_in_use(self, tmp_path: Path, file: File) -> None:
        with daemon(tmp_path, "--web.enable-lifecycle") as running:
            running.wait_until_ready()
            file.path.write_text(file.watch("order-2"))
            response = running.http.post("/-/reload")
            assert (response.status_code, response.text) == (200, "")
            assert "order-1" not in watched(running)
            wait_until(lambda: watched(running) == {"order-2"}, running.stderr)

    def test_a_bad_file_changes_nothing_and_every_error_is_reported(
        self, tmp_path: Path, file: File
    ) -> None:
        with daemon(tmp_path, "--web.enable-lifecycle") as running:
            running.wait_until_ready()
            at = metric(running, LOADED_AT)
            bad = file.watch("order-2", poll={"interval": "soon"}, log={"level": "loud"})
            file.path.write_text(bad)
            response = running.http.post("/-/reload")
            assert response.status_code == 500
            first, *problems = response.text.splitlines()
            assert first == "failed to reload config:"
            assert [problem.partition(":")[0] for problem in problems] == [
                "poll.interval",
                "log.level",
            ]
            (line,) = [line for line in running.stderr().splitlines() if "problems=" in line]
            assert "level=error" in line
            assert all(problem.replace('"', r"\"") in line for problem in problems)
            assert metric(running, LOADED) == 0
            assert metric(running, LOADED_AT) == at
            assert watched(running) == {"order-1"}
            assert running.http.get("/-/ready").status_code == 200
            file.path.write_text(file.watch("order-1"))
            assert running.http.post("/-/reload").status_code == 200
            assert metric(running, LOADED) == 1

    @pytest.mark.parametrize("damage", ["gone", "no YAML", "no secret"])
    def test_a_file_that_cannot_be_used_changes_nothing(
        self, tmp_path: Path, file: File, damage: str
    ) -> None:
        with daemon(tmp_path, "--web.enable-lifecycle") as running:
            running.wait_until_ready()
            if damage == "gone":
                file.path.unlink()
            elif damage == "no YAML":
                file.path.write_text("accounts: [")
            else:
                account = file.tree["accounts"][0]
                del account["api_token"]
                account["api_token_file"] = str(tmp_path / "none")
                file.path.write_text(file.watch("order-1"))
            assert running.http.post("/-/reload").status_code == 500
            assert metric(running, LOADED) == 0
            assert watched(running) == {"order-1"}

    def test_no_scrape_meanwhile_misses_what_stays(self, tmp_path: Path, file: File) -> None:
        with daemon(tmp_path, "--web.enable-lifecycle") as running:
            running.wait_until_ready()
            for turn in range(20):
                others = ("order-2", "order-3")[: turn % 3]
                file.path.write_text(file.watch("order-1", *others))
                assert running.http.post("/-/reload").status_code == 200
                for _ in range(3):
                    assert "order-1" in watched(running)


class TestMountedFile:
    def test_a_swap_is_noticed_by_what_the_file_holds(self, tmp_path: Path, file: File) -> None:
        """As the kubelet updates a ConfigMap's volume: the file is a link into a folder that is a
        link itself, which is replaced by another in one step."""
        mount = tmp_path / "mount"
        mount.mkdir()

        def swap(name: str, text: str) -> None:
            (mount / name).mkdir()
            (mount / name / "config.yaml").write_text(text)
            # As old as any other: they differ in nothing but the content.
            os.utime(mount / name / "config.yaml", (1, 1))
            (mount / "..tmp").symlink_to(name)
            (mount / "..tmp").rename(mount / "..data")

        swap("..1", file.watch("order-1"))
        (mount / "config.yaml").symlink_to("..data/config.yaml")
        flags = (f"--config.file={mount / 'config.yaml'}", "--config.auto-reload-interval=1s")
        with daemon(tmp_path, *flags) as running:
            running.wait_until_ready()
            swap("..2", file.watch("order-1"))
            swap("..3", file.watch("order-2"))
            wait_until(lambda: watched(running) == {"order-2"}, running.stderr)
            wait_until_reloaded(running)
            swap("..4", "accounts: [")
            wait_until(lambda: metric(running, LOADED) == 0, running.stderr)
            swap("..5", file.watch("order-3"))
            wait_until(lambda: watched(running) == {"order-3"}, running.stderr)
            wait_until_reloaded(running, 2)
            assert running.stderr().count("problems=") == 1
            assert metric(running, LOADED) == 1
