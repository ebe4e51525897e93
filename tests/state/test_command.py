"""The command and its state file: what it says and shows when the file can't be had or written,
and how it stops."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exporter.state.backend import InUse
from exporter.state.sqlite import Sqlite
from simulator import Hang, Script, Simulator, serve_in_thread, steps
from tests.e2e.daemon import Daemon, configuration, daemon, run
from tests.e2e.scrape import samples, value
from tests.requires import requires_mounts
from tests.waiting import DEADLINE, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow(6)]

POWERS = "-dac_override,-dac_read_search,-fowner"
"""What makes permissions mean nothing to root."""
BEGAN = time.time() - 60


@contextlib.contextmanager
def simulated() -> Iterator[Simulator]:
    """With `order-1`, which has ended."""
    simulator = Simulator()
    simulator.access.token("secret")
    create(simulator, "order-1")
    with serve_in_thread(simulator) as served:
        yield served


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with simulated() as simulator:
        yield simulator


def prepare(folder: Path, simulator: Simulator) -> None:
    """A configuration, with the state in `state/state.db`.

    It watches `order-1`, `order-2` which a test may create, and one that never comes and so is
    polled all the time.
    """
    workflows = [{"name": "orders", "instances": ["order-1", "order-2", "never"]}]
    api = simulator.url + "/accounts/{account_id}"
    path = configuration(folder, api, api_token="secret", workflows=workflows)
    path.write_text(path.read_text().replace("/state.db", "/state/state.db"))
    (folder / "state").mkdir()


@pytest.fixture
def folder(simulator: Simulator, tmp_path: Path) -> Path:
    prepare(tmp_path, simulator)
    return tmp_path


@pytest.fixture(scope="module")
def state_of_order_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    with simulated() as simulator:
        prepare(folder, simulator)
        with daemon(folder) as running:
            running.wait_until_ready()
            assert running.stop() == 0
    return folder / "state" / "state.db"


@pytest.fixture
def restored(folder: Path, state_of_order_1: Path) -> Path:
    """The folder, and its state holds the run of `order-1`."""
    shutil.copy(state_of_order_1, folder / "state")
    return folder


def create(simulator: Simulator, instance_id: str) -> None:
    """An instance that has ended already."""
    orders = simulator.world.account("acc").workflow("orders")
    orders.create(instance_id, Script(steps("pay")), at=BEGAN)


def runs(running: Daemon) -> float:
    name = "cloudflare_workflow_runs_finished_total"
    return value(samples(running.metrics()), name, status="complete")


def errors(running: Daemon) -> float:
    name = "cloudflare_workflows_exporter_state_write_errors_total"
    return value(samples(running.metrics()), name)


def shows(running: Daemon, instance_id: str) -> bool:
    return f'instance_id="{instance_id}",status="complete"' in running.metrics().replace(
        'workflow="orders",', ""
    )


def powerless() -> list[str]:
    """A command that runs another as somebody for whom permissions count."""
    if os.geteuid():
        return []
    return ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}"]


class TestItCanBeReadAndNotWritten:
    """What it holds is shown; gauges continue; counts wait: a restart would take them back."""

    @pytest.fixture(params=["the file", "the folder", "the file system"])
    def within(self, request: pytest.FixtureRequest, restored: Path) -> Iterator[Sequence[str]]:
        file, state = restored / "state" / "state.db", restored / "state"
        match request.param:
            case "the file":
                file.chmod(0o400)
            case "the folder":
                state.chmod(0o500)
            case _:
                yield requires_mounts(
                    f"mount --bind {state} {state}; mount -o remount,bind,ro {state}"
                )
                return
        yield powerless()
        state.chmod(0o700)

    def test_it_says_so_and_serves_on_until_it_can(
        self, within: Sequence[str], restored: Path, simulator: Simulator
    ) -> None:
        create(simulator, "order-2")
        with daemon(restored, within=within) as running:
            running.wait_until_ready()
            wait_until(lambda: shows(running, "order-2"), running.metrics)
            assert errors(running) >= 1
            assert runs(running) == 1, "as of the last write"
            assert running.http.get("/-/healthy").status_code == 200
            (line,) = [line for line in running.stderr().splitlines() if "level=error" in line]
            assert "attempt to write a readonly database" in line
            assert "permissions" in line
            state = restored / "state"
            state.chmod(0o700)
            (state / "state.db").chmod(0o600)
            its_mounts = ["nsenter", f"--target={running.process.pid}", "--mount"]
            remount = ["mount", "-o", "remount,bind,rw", str(state)]
            subprocess.run([*its_mounts, *remount], check=False, capture_output=True)
            wait_until(lambda: runs(running) == 2, running.metrics)
            with pytest.raises(InUse):
                Sqlite(state / "state.db")


def test_a_folder_in_which_no_file_can_be_made(folder: Path) -> None:
    (folder / "state").chmod(0o500)
    with daemon(folder, within=powerless()) as running:
        running.wait_until_ready()
        assert runs(running) == 1
        wait_until(lambda: errors(running) >= 2, running.metrics)
        assert running.stop() == 0
        (line,) = [line for line in running.stderr().splitlines() if "level=error" in line]
        assert f"path={folder}/state/state.db" in line
        assert "counting from zero, and nothing is persisted" in line
    (folder / "state").chmod(0o700)


def test_a_full_disk(folder: Path, simulator: Simulator) -> None:
    """Gauges continue, counts wait for room, and then come at once."""
    state = folder / "state"
    with daemon(
        folder, within=requires_mounts(f"mount -t tmpfs -o size=512k none {state}")
    ) as running:
        running.wait_until_ready()
        assert runs(running) == 1
        inside = Path(f"/proc/{running.process.pid}/root{state}")
        fill(inside / "filler")
        create(simulator, "order-2")
        wait_until(lambda: shows(running, "order-2"), running.metrics)
        wait_until(lambda: errors(running) >= 2, running.metrics)
        assert runs(running) == 1
        (inside / "filler").unlink()
        wait_until(lambda: runs(running) == 2, running.metrics)
        assert "database or disk is full" in running.stderr()
        wait_until(lambda: "state write succeeded again" in running.stderr(), running.stderr)
        with contextlib.closing(
            sqlite3.connect(f"file:{copied(inside, folder)}", uri=True)
        ) as copy:
            (rows,) = copy.execute(
                "SELECT count(*) FROM instances WHERE id IN ('order-1', 'order-2')"
            )
        assert rows == (2,)


def fill(filler: Path) -> None:
    """Takes the room that is left."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


def copied(inside: Path, folder: Path) -> Path:
    for suffix in ("", "-wal"):
        shutil.copy(inside / f"state.db{suffix}", folder / f"copy.db{suffix}")
    return folder / "copy.db"


def test_a_lock_of_another_process_at_the_start_and_when_it_stops(
    restored: Path, simulator: Simulator
) -> None:
    create(simulator, "order-2")
    file = restored / "state" / "state.db"
    other = sqlite3.connect(file, timeout=DEADLINE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with daemon(restored, "--api.timeout=1h") as running:
        wait_until(lambda: shows(running, "order-2"), running.metrics)
        assert runs(running) == 1
        other.execute("ROLLBACK")
        wait_until(lambda: runs(running) == 2, running.metrics)
        assert "database is locked" in running.stderr()
        wait_until(lambda: "state write succeeded again" in running.stderr(), running.stderr)

        simulator.faults.add(Hang())
        wait_until(lambda: simulator.requests.in_flight, running.stderr)
        other.execute("BEGIN IMMEDIATE")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE) == 0, "less than a request may take"
    other.close()


def test_a_second_exporter_is_refused(folder: Path) -> None:
    with daemon(folder) as running:
        running.wait_until_ready()
        done = run(folder, "--web.listen-address=127.0.0.1:0")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{folder}/state/state.db is in use by another exporter" in line
        assert "give this one its own state.path" in line
        assert running.http.get("/-/healthy").status_code == 200


def test_the_last_counts_are_written_when_it_stops(folder: Path, simulator: Simulator) -> None:
    """Those, too, that no scrape has seen, and of a request that ends while it stops."""
    with daemon(folder, "--api.timeout=1h") as running:
        running.wait_until_ready()
        hanging = simulator.faults.add(Hang(), instance="order-2")
        create(simulator, "order-2")
        wait_until(lambda: hanging.taken, running.stderr)
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "msg=stopping" in running.stderr(), running.stderr)
        simulator.faults.clear()
        assert running.process.wait(DEADLINE) == 0
    simulator.faults.add(Hang())
    with daemon(folder) as running:
        assert runs(running) == 2
        running.process.kill()
