"""What the engine's local explorer asks of the process that started it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class EngineHost(ThreadingHTTPServer):
    """Answers on loopback, in threads of its own.

    Args:
        workflows: where the engine keeps instances: a folder for each workflow, with a file for
            each instance.
    """

    daemon_threads = True

    def __init__(self, workflows: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._workflows = workflows
        self._created: dict[Path, float] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, path: str) -> Any:
        """The files of which the list of a workflow's instances is made, or the other engines on
        this machine: none."""
        if not path.startswith("/core/workflow-storage/"):
            return {}
        folder = self._workflows / f"miniflare-workflows-{Path(path).name}"
        return [
            {"name": file.name, "type": "file", "birthtimeMs": self._created_at(file)}
            for file in folder.glob("*.sqlite")
        ]

    def _created_at(self, file: Path) -> float:
        """Python can't tell on Linux, but what wasn't there before is newer than what was."""
        return self._created.setdefault(file, file.stat().st_mtime * 1000)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: EngineHost

    def do_GET(self) -> None:
        body = json.dumps(self.server.answer(unquote(self.path))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Requests are not logged."""
