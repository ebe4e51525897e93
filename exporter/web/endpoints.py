"""The endpoints: metrics for Prometheus, health for Kubernetes, pages for people."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exporter.config.reload import Reloader
from exporter.metrics.exposition import Exposition
from exporter.web.headers import HEADERS
from exporter.web.metrics_endpoint import MetricsEndpoint
from exporter.web.page.pages import Pages
from exporter.web.page.view import WatchView

Check = Callable[[], list[str]]
"""What is wrong, a line each; nothing when all is well."""


def endpoints(
    exposition: Exposition,
    overview: WatchView,
    *,
    unhealthy: Check,
    unready: Check,
    reloader: Reloader | None = None,
) -> Starlette:
    """The application that is served."""

    def check(wrong: Check, well: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            problems = wrong()
            text = "\n".join(problems or [well]) + "\n"
            return PlainTextResponse(text, 503 if problems else 200, headers=HEADERS)

        return answer

    async def reload(_: Request) -> Response:
        # In Prometheus' words and with its statuses.
        if reloader is None or not reloader.enabled:
            text = "Lifecycle API is not enabled: start with --web.enable-lifecycle\n"
            return PlainTextResponse(text, 403, headers=HEADERS)
        if problems := await reloader.reload():
            text = "\n".join(("failed to reload config:", *problems)) + "\n"
            return PlainTextResponse(text, 500, headers=HEADERS)
        return PlainTextResponse("", headers=HEADERS)

    return Starlette(
        routes=[
            Route("/metrics", MetricsEndpoint(exposition, HEADERS), methods=["GET"]),
            Route("/-/healthy", check(unhealthy, "healthy")),
            Route("/-/ready", check(unready, "ready")),
            Route("/-/reload", reload, methods=["POST", "PUT"]),
            *Pages(overview).routes,
        ],
        exception_handlers={HTTPException: _refusal},
    )


async def _refusal(_: Request, error: Exception) -> Response:
    """404 and 405, with the headers that all answers have."""
    assert isinstance(error, HTTPException)
    text = HTTPStatus(error.status_code).phrase + "\n"
    headers = {**HEADERS, **(error.headers or {})}
    return PlainTextResponse(text, error.status_code, headers=headers)
