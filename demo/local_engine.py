"""Starts, controls and stops Cloudflare's local Workflows engine."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from demo.build_engine import CONFIG, WORKERD, build
from demo.child_process import tied_to_this_process
from demo.engine_host import EngineHost

Workflow = Literal["orders", "billing"]
Action = Literal["pause", "resume", "terminate", "restart", "event"]

_REQUEST_TIMEOUT = 120.0
_WAIT_TIMEOUT = 300.0
_STORAGE = (
    "workflows:storage",
    # Of parts that are configured and aren't used:
    "cache:storage",
    "core:local-explorer-disk",
    "d1:storage",
    "email:store-disk",
    "flagship-internal:storage",
    "kv:storage",
    "r2:storage",
)
"""Folders for which workerd asks, as Miniflare names them."""


class EngineError(RuntimeError):
    """The engine did not start, or refused a request."""


class LocalEngine:
    """A running engine with the workflows `orders` and `billing`.

    Attributes:
        api: base of its REST API, for the exporter's `api.url`; without credentials.
        accounts_api: the same in the hosted API's layout, with `{account_id}` still in it;
            any account id, with the bearer token.
        token: the bearer token of `accounts_api`, as scenarios.mjs has it.
    """

    def __init__(self, url: str, resources: ExitStack) -> None:
        self.api = f"{url}/cdn-cgi/local/explorer/api"
        self.accounts_api = f"{url}/client/v4/accounts/{{account_id}}"
        self.token = "local-engine"
        self._worker = url
        self._resources = resources
        self._http = httpx.Client(timeout=_REQUEST_TIMEOUT, trust_env=False)

    @classmethod
    def start(cls, persist_dir: Path | None = None, timeout: float = 120) -> Self:
        """Builds the engine if need be and starts it on a free port of 127.0.0.1.

        Args:
            persist_dir: where instances outlive the engine; without it they end with it.
            timeout: seconds within which it must serve (about half of one on an idle machine).

        Raises:
            EngineError: it did not start in time, or ended at once.
            NodeError: see `build`.
        """
        build()
        with ExitStack() as resources:
            storage = persist_dir
            if storage is None:
                storage = Path(tempfile.mkdtemp(prefix="workflows-engine-"))
                resources.callback(shutil.rmtree, storage)
            host = EngineHost(storage / "workflows")
            resources.callback(host.close)
            process, port = _serve(storage, host.server_port, timeout)
            resources.callback(_kill, process)
            return cls(f"http://127.0.0.1:{port}", resources.pop_all())

    def stop(self) -> None:
        """Kills the engine, which writes at once what is to outlive it."""
        self._http.close()
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def create(self, workflow: Workflow, instance_id: str, scenario: str, **params: object) -> None:
        """Creates an instance that plays `scenario` (see scenarios.mjs), with its parameters.

        Returns once the first steps that don't wait have run.

        Raises:
            EngineError: there is such an instance already, or the id is not a valid one.
        """
        url = f"{self._worker}/{workflow}/{_quoted(instance_id)}"
        self._request("POST", url, json={"scenario": scenario, **params})

    def act(
        self, workflow: Workflow, instance_id: str, action: Action, event_type: str = "approve"
    ) -> None:
        """Pauses, resumes, terminates or restarts an instance, or sends it an event.

        Raises:
            EngineError: no such instance, or its status doesn't allow it.
        """
        url = f"{self._worker}/{workflow}/{_quoted(instance_id)}/{action}"
        self._request("POST", url, params={"type": event_type})

    def restart_from(
        self, workflow: Workflow, instance_id: str, step: str, kind: str = "do", number: int = 1
    ) -> None:
        """Restarts an instance from the `number`-th step of a name and kind (do, sleep,
        waitForEvent): that one and all that began after it run again.

        Raises:
            EngineError: no such instance, or it has no such step.
        """
        url = f"{self.api}/workflows/{workflow}/instances/{_quoted(instance_id)}/status"
        target = {"name": step, "count": number, "type": kind}
        self._request("PATCH", url, json={"status": "restart", "from": target})

    def get(self, workflow: Workflow, instance_id: str) -> dict[str, Any]:
        """The instance as the REST API reports it: the unchanged `result` of the response.

        Raises:
            EngineError: no such instance. (The request leaves a ghost in later lists.)
        """
        url = f"{self.api}/workflows/{workflow}/instances/{_quoted(instance_id)}"
        result: dict[str, Any] = self._request("GET", url).json()["result"]
        return result

    def wait_for(
        self,
        workflow: Workflow,
        instance_id: str,
        condition: str | Callable[[dict[str, Any]], bool],
        timeout: float = _WAIT_TIMEOUT,
    ) -> dict[str, Any]:
        """Polls an instance until it has a status, or a condition on its result holds.

        Args:
            condition: a status (`complete`), or a function of the `result`.
            timeout: seconds.

        Returns:
            The `result` that met the condition.

        Raises:
            TimeoutError: it didn't; the message has the last result.
        """
        deadline = time.monotonic() + timeout
        while True:
            result = self.get(workflow, instance_id)
            met = result["status"] == condition if isinstance(condition, str) else condition(result)
            if met:
                return result
            if time.monotonic() > deadline:
                raise TimeoutError(f"{workflow}/{instance_id} after {timeout} s: {result}")
            time.sleep(0.05)

    def _request(self, method: str, url: str, **content: Any) -> httpx.Response:
        try:
            response = self._http.request(method, url, **content)
        except httpx.TransportError as error:
            raise EngineError(
                f"the local engine does not respond to {method} {url}: {error}"
            ) from error
        if not response.is_success:
            raise EngineError(f"{method} {url}: {response.status_code} {response.text}")
        return response


def _serve(storage: Path, host_port: int, timeout: float) -> tuple[subprocess.Popen[bytes], int]:
    """Starts workerd; returns it once it serves, with its port."""
    folders = []
    for name in _STORAGE:
        folder = storage.absolute() / name.partition(":")[0]
        folder.mkdir(parents=True, exist_ok=True)
        folders.append(f"--directory-path={name}={folder}")
    reading, writing = os.pipe()
    with open(reading) as messages:
        try:
            process = subprocess.Popen(
                [
                    *tied_to_this_process(),
                    *(str(WORKERD), "serve", "--binary", "--experimental", str(CONFIG)),
                    "--socket-addr=entry=127.0.0.1:0",
                    f"--external-addr=loopback=127.0.0.1:{host_port}",
                    f"--control-fd={writing}",
                    *folders,
                ],
                stdout=2,
                pass_fds=[writing],
                process_group=0,
            )
        finally:
            os.close(writing)
        deadline = threading.Timer(timeout, process.kill)
        deadline.start()
        message = messages.readline()
        deadline.cancel()
    if not message:
        _kill(process)
        raise EngineError(f"the local engine did not start within {timeout} s")
    return process, json.loads(message)["port"]


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _quoted(instance_id: str) -> str:
    return quote(instance_id, safe="")
