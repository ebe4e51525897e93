"""The image holds the exporter and nothing else, and runs where little is allowed."""

import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from simulator import Script, Simulator, Wait, serve_in_thread
from tests.e2e.daemon import configuration
from tests.e2e.scrape import samples, value
from tests.image.build import Image, built
from tests.image.container import Container, running
from tests.waiting import DEADLINE, wait_until
from tools import ROOT

TOKEN = "the-token"
USER = 65532
Record = Callable[[str, object], None]


@pytest.mark.process
def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if os.getuid() != 0:
        pytest.skip("making a base and building on it needs root")
    with built(tmp_path_factory.mktemp("image")) as made:
        yield made


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with watching(image, tmp_path_factory.mktemp("container")) as started:
        yield started


@contextmanager
def watching(image: Image, folder: Path) -> Iterator[Container]:
    """Runs the image, which watches an instance that waits."""
    folder.chmod(0o755)
    simulator = Simulator(clock=time.time)
    simulator.access.token(TOKEN)
    simulator.world.account("acc").workflow("orders").create("order-1", Script((Wait("go"),)))
    with serve_in_thread(simulator) as served:
        url = f"{served.url}/accounts/{{account_id}}"
        path = configuration(folder, url, api_token=TOKEN)
        path.write_text(path.read_text().replace(f"{folder}/", ""))  # a relative path, by default
        flags = ["--config.file=/mnt/config.yaml", "--web.listen-address=127.0.0.1:0"]
        with running(image, folder, *flags) as started:
            yield started


@pytest.mark.container
@pytest.mark.slow(12)  # of which the first builds it
class TestImage:
    def test_it_says_what_it_is(self, image: Image) -> None:
        labels = image.config["Labels"]
        assert labels["org.opencontainers.image.title"] == "cloudflare-workflows-exporter"
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert labels["org.opencontainers.image.version"] == "1.2.3"
        assert labels["org.opencontainers.image.revision"] == "abcdef"

    def test_its_user_is_a_number_that_is_not_root(self, image: Image) -> None:
        assert image.config["User"] == f"{USER}:{USER}"

    def test_its_program_is_started_without_a_shell(self, image: Image) -> None:
        assert image.config["Entrypoint"] == ["cloudflare-workflows-exporter"]
        assert "Healthcheck" not in image.config

    def test_nothing_of_the_exporter_can_be_written_by_its_user(self, image: Image) -> None:
        for path in (image.root / "opt" / "exporter").rglob("*"):
            status = path.lstat()
            assert status.st_uid != USER
            assert path.is_symlink() or not status.st_mode & stat.S_IWOTH

    def test_neither_pip_nor_the_build_is_left_in_it(self, image: Image) -> None:
        assert sorted(p.name for p in (image.root / "opt").iterdir()) == ["exporter"]
        packages = next((image.root / "opt" / "exporter" / "lib").glob("*/site-packages"))
        names = {p.name.partition("-")[0].lower() for p in packages.glob("*.dist-info")}
        assert names & {"pip", "setuptools", "wheel", "hatchling"} == set()
        assert not (image.root / "src").exists()

    def test_it_holds_just_what_the_lock_names(self, image: Image) -> None:
        lock = (ROOT / "requirements/runtime.txt").read_text()
        locked = set(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
        packages = next((image.root / "opt" / "exporter" / "lib").glob("*/site-packages"))
        found = {tuple(p.stem.split("-")[:2]) for p in packages.glob("*.dist-info")}
        lowered = {(name.lower().replace("_", "-"), version) for name, version in found}
        others = {name for name, _ in lowered - locked}
        assert others == {"cloudflare-workflows-exporter"}

    def test_its_size_is_reported(self, image: Image, record_property: Record) -> None:
        files = (image.root / "opt" / "exporter").rglob("*")
        size = sum(path.lstat().st_size for path in files)
        record_property("image: MB on top of the base", round(size / 1e6, 1))
        assert size > 0


@pytest.mark.container
class TestContainer:
    """As uid 65532, with a read-only root, without capabilities and without a shell."""

    def test_it_serves_what_it_watches(self, container: Container) -> None:
        with httpx.Client(
            base_url=f"http://{container.address}", trust_env=False, timeout=DEADLINE
        ) as http:
            wait_until(lambda: http.get("/-/ready").is_success, container.log)
            found = samples(http.get("/metrics").text)
            name = "cloudflare_workflow_instance_status"
            assert value(found, name, instance_id="order-1", status="waiting") == 1

    def test_it_is_the_first_process_and_not_root(self, container: Container) -> None:
        assert set(container.status("Uid").split()) == {str(USER)}
        assert container.status("NSpid").split()[-1] == "1"
        assert set(container.status("CapEff")) == {"0"}
        assert container.status("NoNewPrivs") == "1"

    def test_its_root_is_read_only(self, container: Container) -> None:
        mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
        (root,) = (line.split()[5] for line in mounts if line.split()[4] == "/")
        assert "ro" in root.split(",")

    def test_its_start_up_time_is_reported(
        self, container: Container, record_property: Record
    ) -> None:
        record_property(
            "image: seconds from its start until it listens", round(container.started, 2)
        )
        assert container.started > 0

    def test_it_watches_a_whole_account_with_nothing_but_a_credential(
        self, image: Image, tmp_path: Path
    ) -> None:
        simulator = Simulator(clock=time.time)
        simulator.access.token(TOKEN, accounts=["acc"])
        orders = simulator.world.account("acc").workflow("orders")
        # Older than `discover.min_age`.
        orders.create("order-1", Script((Wait("go"),)), at=time.time() - 3600)
        with (
            serve_in_thread(simulator) as served,
            running(
                image,
                tmp_path,
                CLOUDFLARE_API_TOKEN=TOKEN,
                CLOUDFLARE_ACCOUNT_ID="acc",
                CWE_API__URL=f"{served.url}/accounts/{{account_id}}",
                CWE_WEB__LISTEN_ADDRESS="127.0.0.1:0",
            ) as started,
            httpx.Client(
                base_url=f"http://{started.address}", trust_env=False, timeout=DEADLINE
            ) as http,
        ):
            wait_until(lambda: http.get("/-/ready").is_success, started.log)
            found = samples(http.get("/metrics").text)
            name = "cloudflare_workflow_instance_status"
            assert value(found, name, instance_id="order-1", status="waiting") == 1

    def test_sigterm_ends_it_with_status_0(
        self, image: Image, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        with watching(image, tmp_path_factory.mktemp("stopped")) as container:
            assert container.stop() == 0, container.log()
