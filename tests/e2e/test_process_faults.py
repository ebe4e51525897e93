"""What befalls the process and its machine: when it is over, every count is what an exporter shows
that nothing happened to."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from exporter.app import App
from exporter.config.settings import Settings
from simulator import Drop, Script, Simulator, in_thread, retried, serve_in_thread, steps
from tests.e2e.daemon import (
    Daemon,
    command,
    configuration,
    daemon,
    environment,
    signalled_at_its_start,
)
from tests.e2e.scrape import Samples, differences, samples, scrape, value
from tests.relay import relay
from tests.requires import requires_mounts
from tests.waiting import DEADLINE, tied, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow(7)]

RUN = Script(
    (*steps("fetch", duration=0.2), retried("charge", failures=1, duration=0.2, backoff=0.1))
)
INSTANCES = ["one", "two", "three"]
WORKFLOWS: list[dict[str, Any]] = [
    {"name": "orders", "instances": INSTANCES},
    {"name": "billing", "discover": {"min_age": "0s"}},
]
COUNTS = tuple(f"cloudflare_workflow_{name}" for name in ("run", "step_duration", "step_att"))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = Simulator()
    simulator.access.token("secret")
    for workflow in ("orders", "billing"):
        simulator.world.account("acc").workflow(workflow)
    with serve_in_thread(simulator) as served:
        yield served


@pytest.fixture
def folder(simulator: Simulator, tmp_path: Path) -> Path:
    api = simulator.url + "/accounts/{account_id}"
    configuration(tmp_path, api, api_token="secret", workflows=WORKFLOWS)
    return tmp_path


def create(simulator: Simulator, instance_id: str) -> None:
    """A run that begins now, of each workflow."""
    for workflow in ("orders", "billing"):
        simulator.world.account("acc").workflow(workflow).create(instance_id, RUN)


def counts(running: Daemon) -> Samples:
    return samples(running.metrics(), COUNTS)


def undisturbed(simulator: Simulator) -> Samples:
    """What an exporter counts that polls now for the first time."""
    api = {"url": simulator.url + "/accounts/{account_id}", "requests_per_5m": 100_000}
    account = {"name": "production", "account_id": "acc", "api_token": "secret"}
    settings = Settings(
        api=api,
        accounts=[{**account, "workflows": WORKFLOWS}],
        metrics={"backfill": True},
    )
    app = App(settings)
    assert asyncio.run(app.once())
    return {key: v for key, v in scrape(app).items() if key[0].startswith(COUNTS)}


def all_ended(simulator: Simulator) -> bool:
    found = simulator.world.account("acc").workflows.values()
    return all(
        i.status(int(time.time() * 1000)) == "complete"
        for w in found
        for i in [*w.instances.values()]
    )


def wait_until_all_is_counted(running: Daemon, simulator: Simulator) -> None:
    wait_until(lambda: all_ended(simulator), lambda: "the runs didn't end")
    expected = undisturbed(simulator)
    wait_until(
        lambda: not differences(counts(running), expected),
        lambda: "\n".join([*differences(counts(running), expected)[:3], running.stderr()]),
    )


def connected(simulator: Simulator) -> bool:
    """Whether there are connections to it."""
    # The address of the other end, and that they are established.
    end = f":{urlsplit(simulator.url).port:04X} 01 "
    return end in Path("/proc/net/tcp").read_text()


def refused(running: Daemon) -> float:
    """Polls that found no connection."""
    polls = "cloudflare_workflows_exporter_polls_total"
    return value(samples(running.metrics()), polls, kind="detail", result="connection")


def test_no_file_can_be_opened(simulator: Simulator, folder: Path) -> None:
    """Not a connection to Cloudflare, either, and none of a scraper that has none yet."""
    with daemon(folder) as running:
        running.wait_until_ready()
        create(simulator, "one")
        pid = running.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        drop = simulator.faults.add(Drop())
        wait_until(lambda: refused(running) and not connected(simulator), running.stderr)
        simulator.faults.remove(drop)
        before_that, requests = refused(running), simulator.requests.total
        wait_until(lambda: refused(running) > before_that + 5, running.metrics)
        assert simulator.requests.total == requests
        create(simulator, "two")
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://{running.address}/metrics", trust_env=False, timeout=1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_until_all_is_counted(running, simulator)
        assert httpx.get(
            f"http://{running.address}/-/healthy", trust_env=False, timeout=DEADLINE
        ).is_success
        assert running.stop() == 0


def test_it_is_stopped_for_a_while(simulator: Simulator, folder: Path) -> None:
    """As by a debugger, or by a machine that is suspended."""
    with daemon(folder) as running:
        running.wait_until_ready()
        create(simulator, "one")
        wait_until(lambda: simulator.requests.in_flight, running.stderr)
        running.process.send_signal(signal.SIGSTOP)
        create(simulator, "two")
        wait_until(lambda: all_ended(simulator), lambda: "the runs didn't end")
        wait_until(lambda: not simulator.requests.in_flight, lambda: "requests are still open")
        running.process.send_signal(signal.SIGCONT)
        wait_until_all_is_counted(running, simulator)
        create(simulator, "three")
        wait_until_all_is_counted(running, simulator)
        assert running.http.get("/-/healthy").is_success


def test_a_container_that_is_stopped_while_it_starts_ends_after_the_start(
    simulator: Simulator, folder: Path
) -> None:
    """As in a rollout that is followed by the next one."""
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    within = [*requires_mounts("true"), *container, *signalled_at_its_start("TERM")]
    with daemon(folder, within=within) as running:
        assert running.process.wait(DEADLINE) == 0
        assert "msg=stopping" in running.stderr()


def certificate(path: Path) -> None:
    """A key and a certificate that it has signed itself, with these endings."""
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=api.example", "-addext", "subjectAltName=DNS:api.example"]
    files = ["-keyout", f"{path}.key", "-out", f"{path}.pem"]
    command = ["openssl", "req", *options.split(), *names, *files]
    subprocess.run(command, check=True, capture_output=True)


def show(context: ssl.SSLContext, path: Path) -> None:
    context.load_cert_chain(f"{path}.pem", f"{path}.key")


@contextlib.contextmanager
def tls_before(simulator: Simulator) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A port that speaks TLS, and how; behind it is the simulator."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with in_thread(relay(context)) as (between, _):
        between.port = urlsplit(simulator.url).port or 0
        yield int(between.address.split(":")[1]), context


@contextlib.contextmanager
def name_server_that_never_answers() -> Iterator[str]:
    """Its address."""
    # A resolver asks port 53 alone; other test runs have addresses of their own.
    process = os.getpid()
    address = f"127.{1 + process // 2**16 % 254}.{process // 2**8 % 2**8}.{process % 2**8}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((address, 53))
        except PermissionError:
            pytest.skip("to listen on port 53 needs root")
        yield address


class TestTheWayToCloudflare:
    """With a name server, a file of hosts and certificates of the test's own."""

    @pytest.fixture
    def hosts(self, folder: Path) -> Path:
        """In place of /etc/hosts."""
        path = folder / "hosts"
        path.write_text("127.0.0.1 localhost\n")
        return path

    @contextlib.contextmanager
    def running(
        self,
        hosts: Path,
        port: int,
        *,
        patience: int,
        attempts: int = 1,
        timeout: str = "1s",
        workflows: list[dict[str, Any]] = WORKFLOWS,
    ) -> Iterator[Daemon]:
        """An exporter that polls https://api.example and waits `patience` seconds for its address,
        at each of its attempts."""
        folder, resolver = hosts.parent, hosts.with_name("resolv.conf")
        api = f"https://api.example:{port}/client/v4/accounts/{{account_id}}"
        configuration(folder, api, api_token="secret", workflows=workflows)
        within = requires_mounts(
            f"mount --bind {hosts} /etc/hosts; mount --bind {resolver} /etc/resolv.conf"
        )
        environ = environment(SSL_CERT_FILE=str(folder / "trusted.pem"), NO_PROXY="*")
        certificate(folder / "trusted")
        with name_server_that_never_answers() as server:
            resolver.write_text(
                f"nameserver {server}\noptions timeout:{patience} attempts:{attempts}\n"
            )
            with daemon(
                folder, f"--api.timeout={timeout}", within=within, environ=environ
            ) as running:
                wait_until(lambda: "result=dns" in running.stderr(), running.stderr)
                yield running

    def test_a_name_that_is_not_found_and_a_certificate_that_is_not_trusted(
        self, simulator: Simulator, hosts: Path
    ) -> None:
        certificate(hosts.with_name("other"))
        with (
            tls_before(simulator) as (port, context),
            self.running(hosts, port, patience=1, timeout="30s") as running,
        ):
            create(simulator, "one")
            show(context, hosts.with_name("other"))
            with hosts.open("a") as file:
                file.write("127.0.0.1 api.example\n")
            wait_until(lambda: "self-signed certificate" in running.stderr(), running.stderr)
            create(simulator, "two")
            show(context, hosts.with_name("trusted"))
            wait_until_all_is_counted(running, simulator)
            assert running.http.get("/-/healthy").is_success

    def test_a_request_that_waited_for_a_connection_fails_for_the_name_server_too(
        self, hosts: Path
    ) -> None:
        """More than there are connections: the others get one when most of their time is over."""
        many = [{"name": "orders", "instances": [f"order-{i}" for i in range(30)]}]
        with self.running(hosts, 443, patience=25, timeout="4s", workflows=many) as running:
            name = "cloudflare_workflows_exporter_polls_total"

            def failed(result: str) -> float:
                return value(samples(running.metrics()), name, kind="detail", result=result)

            wait_until(lambda: failed("dns") >= 20, running.stderr)
            assert failed("timeout") == 0

    def test_it_stops_at_once_during_a_dns_lookup(self, hosts: Path) -> None:
        with self.running(hosts, 443, patience=30, attempts=5) as running:
            # A page is made in a thread; lookups take none from it.
            assert running.http.get("/").is_success
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(140) == 0, "less than a lookup takes"


@pytest.mark.parametrize("again", [False, True], ids=["never", "again"])
def test_a_log_that_nobody_reads_holds_up_nothing(folder: Path, again: bool) -> None:
    """Neither scrapes nor the end. Read again, it says how many lines are missing."""
    reloaded = "cloudflare_workflows_exporter_config_last_reload_success_timestamp_seconds"
    reading, writing = os.pipe()
    running = tied(*command("--web.listen-address=127.0.0.1:0", "--log.format=json"))
    with (
        open(reading, "rb", buffering=0) as log,
        httpx.Client(trust_env=False, timeout=DEADLINE) as http,
        subprocess.Popen(running, cwd=folder, env=environment(), stderr=writing) as process,
    ):
        os.close(writing)
        try:
            address = json.loads(log.readline())["address"]
            # Opened again, so that only this end does not wait.
            with open(
                os.open(f"/proc/self/fd/{reading}", os.O_WRONLY | os.O_NONBLOCK), "wb"
            ) as end:
                while end.raw.write(b"\n" * 4096):
                    pass
            reloads: set[float] = set()

            def reload() -> int:
                process.send_signal(signal.SIGHUP)
                text = http.get(f"http://{address}/metrics").text
                reloads.add(value(samples(text, reloaded), reloaded))
                return len(reloads)

            wait_until(lambda: reload() > 3, lambda: f"reloads: {reloads}")
            if again:
                log.read(1 << 20)
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
        assert (b'"nobody read the log; lines were dropped"' in log.read()) == again
