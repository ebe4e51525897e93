"""The endpoints: metrics for Prometheus, health for Kubernetes, a page for people."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter import __version__
from exporter.metrics.exposition import Exposition
from exporter.web.scrapes import Scrapes

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Cloudflare Workflows exporter</title>
</head>
<body>
<h1>Cloudflare Workflows exporter</h1>
<p>Version {__version__}</p>
<ul>
<li><a href="metrics">Metrics</a></li>
<li><a href="-/healthy">Health</a></li>
<li><a href="-/ready">Readiness</a></li>
</ul>
</body>
</html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Check = Callable[[], list[str]]
"""What is wrong, a line each; nothing when all is well."""


def endpoints(exposition: Exposition, *, unhealthy: Check, unready: Check) -> Starlette:
    """The application that is served."""

    def check(wrong: Check, well: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            problems = wrong()
            text = "\n".join(problems or [well]) + "\n"
            return PlainTextResponse(text, 503 if problems else 200, headers=_HEADERS)

        return answer

    async def page(_: Request) -> Response:
        return HTMLResponse(_PAGE, headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/metrics", Scrapes(exposition, _HEADERS), methods=["GET"]),
            Route("/-/healthy", check(unhealthy, "healthy")),
            Route("/-/ready", check(unready, "ready")),
            Route("/", page),
        ],
        exception_handlers={HTTPException: _refusal},
    )


async def _refusal(_: Request, error: Exception) -> Response:
    """404 and 405, with the headers that all answers have."""
    assert isinstance(error, HTTPException)
    text = HTTPStatus(error.status_code).phrase + "\n"
    headers = {**_HEADERS, **(error.headers or {})}
    return PlainTextResponse(text, error.status_code, headers=headers)
