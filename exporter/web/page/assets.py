"""The files that pages use: served by ourselves, and kept by browsers for good."""

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from exporter.web.headers import HEADERS

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Assets:
    """The files of `assets/`, each under a name that changes with what is in it."""

    def __init__(self) -> None:
        self.hrefs: dict[str, str] = {}
        """The address of each, by its name, relative to the pages."""
        self._files: dict[str, tuple[bytes, str]] = {}
        for file in sorted((Path(__file__).parent / "assets").iterdir()):
            body = file.read_bytes()
            name = f"{file.stem}.{hashlib.sha256(body).hexdigest()[:12]}{file.suffix}"
            self.hrefs[file.name] = f"assets/{name}"
            self._files[name] = body, _TYPES[file.suffix]

    async def answer(self, request: Request) -> Response:
        """A file."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        body, content_type = file
        headers = {
            **HEADERS,
            "Content-Type": content_type,
            "Cache-Control": "public, max-age=31536000, immutable",
        }
        return Response(body, headers=headers)
