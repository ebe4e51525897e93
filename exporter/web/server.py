"""Serves the endpoints: uvicorn, without its own signal handling and logs."""

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; an empty host is every address, of IPv6 and IPv4.

    Raises:
        OSError: the address can't be had, because the port is in use, say.
    """
    dualstack = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dualstack or ":" in host else socket.AF_INET
    listener = socket.create_server(
        (host, port), family=family, dualstack_ipv6=dualstack, backlog=_BACKLOG
    )
    # Connections inherit it; asyncio sets it only for sockets that it made itself, and without it
    # the end of an answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    """host:port, with an IPv6 host in brackets, as in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server(uvicorn.Server):
    """An HTTP server that runs until `should_exit` is set."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are the app's, which stops more than this server.
        yield
