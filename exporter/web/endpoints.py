"""The endpoints: metrics for Prometheus, health checks for Kubernetes, reload, pages for people."""

from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exporter.config.reload import Reloader
from exporter.metrics.exposition import Exposition
from exporter.web.metrics_endpoint import MetricsEndpoint
from exporter.web.page.pages import Pages
from exporter.web.page.view import WatchView

Check = Callable[[], list[str]]
"""Returns the problems, a line each; none when all is well."""


def endpoints(
    exposition: Exposition,
    view: WatchView,
    *,
    unhealthy: Check,
    unready: Check,
    reloader: Reloader | None = None,
) -> Starlette:
    """The web application."""
    return Starlette(
        routes=[
            Route("/metrics", MetricsEndpoint(exposition), methods=["GET"]),
            Route("/-/healthy", partial(_check, unhealthy, "healthy")),
            Route("/-/ready", partial(_check, unready, "ready")),
            Route("/-/reload", partial(_reload, reloader), methods=["POST", "PUT"]),
            *Pages(view).routes,
        ]
    )


async def _check(find_problems: Check, ok: str, _: Request) -> Response:
    problems = find_problems()
    return _lines(problems or [ok], 503 if problems else 200)


async def _reload(reloader: Reloader | None, _: Request) -> Response:
    # Texts and statuses are Prometheus'.
    if reloader is None or not reloader.settings.web.enable_lifecycle:
        return _lines(["Lifecycle API is not enabled: start with --web.enable-lifecycle"], 403)
    if problems := await reloader.reload():
        return _lines(["failed to reload config:", *problems], 500)
    return PlainTextResponse("")


def _lines(lines: list[str], status: int) -> Response:
    return PlainTextResponse("\n".join(lines) + "\n", status)
