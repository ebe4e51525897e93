"""Starts, controls and stops Cloudflare's local Workflows engine."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from demo.node_packages import HERE, install, node

Workflow = Literal["orders", "billing"]
Action = Literal["pause", "resume", "terminate", "restart", "event"]

_STOP_TIMEOUT = 10.0
_REQUEST_TIMEOUT = 120.0
_WAIT_TIMEOUT = 300.0


class EngineError(RuntimeError):
    """The engine did not start, or refused a request."""


class LocalEngine:
    """A running engine with the workflows `orders` and `billing`.

    Attributes:
        api: base of its REST API, for the exporter's `api.url`; without credentials.
        accounts_api: the same in the hosted API's layout, with `{account_id}` still in it;
            any account id, with the bearer token.
        token: the bearer token of `accounts_api`.
    """

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, str], token: str) -> None:
        self.api = ready["api"]
        self.accounts_api = ready["accounts_api"]
        self.token = token
        self._worker = ready["url"]
        self._process = process
        self._http = httpx.Client(timeout=_REQUEST_TIMEOUT, trust_env=False)

    @classmethod
    def start(
        cls, persist_dir: Path | None = None, timeout: float = 120, token: str = "local-engine"
    ) -> Self:
        """Installs the engine if need be and starts it on free ports of 127.0.0.1.

        Args:
            persist_dir: where instances outlive the engine; without it they end with it.
            timeout: seconds within which it must serve (about one on an idle machine).
            token: the bearer token to be checked under `accounts_api`.

        Raises:
            EngineError: it did not start in time, or ended at once.
            NodeError: see `install`.
        """
        install()
        command = [str(node()), "engine_server.mjs", f"--token={token}"]
        if persist_dir is not None:
            command.append(f"--persist={persist_dir.absolute()}")
        process = subprocess.Popen(
            command,
            cwd=HERE,
            stdin=subprocess.PIPE,  # it stops when this closes, so it never outlives us
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the engine is two processes, node and workerd: one group
        )
        assert process.stdout is not None
        deadline = threading.Timer(timeout, os.killpg, [process.pid, signal.SIGKILL])
        deadline.start()
        ready = process.stdout.readline()
        deadline.cancel()
        if not ready:
            _kill(process)
            raise EngineError(f"the local engine did not start within {timeout} s")
        return cls(process, json.loads(ready), token)

    def stop(self) -> None:
        """Stops the engine; kills it when that takes longer than 10 s."""
        self._http.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT)
        _kill(self._process)

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


def _kill(process: subprocess.Popen[str]) -> None:
    """Kills what remains of the process and its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _quoted(instance_id: str) -> str:
    return quote(instance_id, safe="")
