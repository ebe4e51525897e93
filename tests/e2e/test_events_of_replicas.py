"""Events of replicas as people run them: processes on a real PostgreSQL, a queue over sockets."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from simulator import QUEUES_EDIT, Attempt, Error, Script, Simulator, Step, serve_in_thread
from tests.e2e.daemon import Daemon, configuration, daemon
from tests.e2e.scrape import samples
from tests.postgres import PostgresServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.slow(20)]

QUEUE = "e5a9a1b1c0de4f0f8a1f5b6c7d8e9f00"
WORKFLOWS = ["billing", "orders", "report"]
FAILING = Script((Step("charge", (Attempt(0.1, Error("TypeError", "no")),)),))
BACKLOG = "cloudflare_workflows_exporter_event_queue_backlog"
HELD = "cloudflare_workflows_exporter_workflows_held"
STATUS = "cloudflare_workflow_instance_status"


def replica(folder: Path, api: str, url: str) -> Path:
    """The folder of a replica whose own list passes come an hour apart."""
    folder.mkdir()
    sections = {
        "state": {"url": url},
        "replica": {"name": folder.name, "lease": "10s"},
        "poll": {"interval": "1h", "ended_interval": "2h"},
    }
    configuration(
        folder,
        api,
        sections,
        api_token="secret",
        events={"queue_id": QUEUE, "api_token": "queues"},
        workflows=[{"name": name, "discover": {"min_age": "0s"}} for name in WORKFLOWS],
    )
    return folder


def value(running: Daemon, name: str) -> float:
    return sum(samples(running.metrics(), name).values())


def pulls(running: Daemon) -> bool:
    """Whether it shows a backlog, which only the replica that pulls does."""
    return BACKLOG + "{" in running.metrics()


def errored(running: Daemon, instance_id: str) -> set[str]:
    """The workflows whose instance of this id it shows as errored."""
    shown = samples(running.metrics(), STATUS).items()
    found = {frozenset(labels) for (_, labels), value in shown if value == 1}
    wanted = {("instance_id", instance_id), ("status", "errored")}
    return {dict(labels)["workflow"] for labels in found if wanted <= labels}


def test_errors_show_by_events_alone_whoever_pulls_and_whoever_dies(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    simulator = Simulator()
    simulator.access.token("secret")
    simulator.access.token("queues", permissions=[QUEUES_EDIT])
    account = simulator.world.account("acc")
    for name in WORKFLOWS:
        account.workflow(name)
    account.queue(QUEUE, *WORKFLOWS)
    url = postgres.new_url()
    with ExitStack() as stack:
        api = stack.enter_context(serve_in_thread(simulator)).url + "/accounts/{account_id}"
        both = [
            stack.enter_context(daemon(replica(tmp_path / name, api, url))) for name in ("a", "b")
        ]

        def stderr() -> str:
            return "\n".join(running.stderr()[-3000:] for running in both)

        wait_until(lambda: sorted(value(r, HELD) for r in both) == [1, 2], stderr)
        wait_until(lambda: [pulls(r) for r in both].count(True) == 1, stderr)
        for running in both:
            running.wait_until_ready()
        for name in WORKFLOWS:
            account.workflow(name).create("first", FAILING)

        def shown() -> bool:
            found = [errored(r, "first") for r in both]
            return all(found) and set.union(*found) == {*WORKFLOWS}  # one of them pulled

        wait_until(shown, stderr)

        pulling = [pulls(r) for r in both]
        while pulling.count(True) != 1:  # on a busy machine a lease may be late
            pulling = [pulls(r) for r in both]
        puller, heir = both if pulling[0] else both[::-1]
        puller.stop(signal.SIGKILL)
        for name in WORKFLOWS:
            account.workflow(name).create("second", FAILING)
        wait_until(lambda: errored(heir, "second") == {*WORKFLOWS}, heir.stderr)
        wait_until(lambda: pulls(heir), heir.stderr)
