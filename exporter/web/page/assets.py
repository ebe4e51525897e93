"""Static files of the pages (style sheet, script, icon), which browsers may cache forever."""

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Assets:
    """The files of `assets/`, each under a name that changes with its contents."""

    def __init__(self) -> None:
        self.hrefs: dict[str, str] = {}
        """The address of each by its name, relative to the pages."""
        self._responses: dict[str, Response] = {}
        for file in sorted((Path(__file__).parent / "assets").iterdir()):
            body = file.read_bytes()
            name = f"{file.stem}.{hashlib.sha256(body).hexdigest()[:12]}{file.suffix}"
            cache = {"Cache-Control": "public, max-age=31536000, immutable"}
            self.hrefs[file.name] = f"assets/{name}"
            self._responses[name] = Response(body, 200, cache, _TYPES[file.suffix])

    async def respond(self, request: Request) -> Response:
        """Serves a file."""
        response = self._responses.get(request.path_params["name"])
        if response is None:
            raise HTTPException(404)
        return response
