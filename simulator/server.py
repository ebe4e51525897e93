"""The simulator on a loopback socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .api import PREFIX
from .control import control_app
from .simulator import Simulator
from .threads import in_thread
from .world import World


class _Protocol(H11Protocol):
    """Hands the transport on, so that faults can end the connection themselves."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        # asyncio sets this only on sockets made with IPPROTO_TCP; without it, headers and body
        # go out 40 ms apart.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)


@contextlib.asynccontextmanager
async def serve(
    simulator: Simulator | World,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    control: bool = False,
) -> AsyncIterator[Simulator]:
    """Serve in the running event loop, on a free port unless one is given.

    With `control`, other programs can control the simulator below `/_control`.
    """
    if isinstance(simulator, World):
        simulator = Simulator(simulator)
    listener = socket.create_server((host, port))
    config = uvicorn.Config(
        control_app(simulator) if control else simulator,
        http=_Protocol,
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        timeout_keep_alive=3600,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    simulator.url = f"http://{host}:{listener.getsockname()[1]}{PREFIX}"
    try:
        yield simulator
    finally:
        # uvicorn's own shutdown waits for requests to end, and those that hang don't.
        for accepting in server.servers:
            accepting.close()
        tasks = list(server.server_state.tasks)
        for task in tasks:
            task.cancel()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the callbacks of the aborted connections


@contextlib.contextmanager
def serve_in_thread(simulator: Simulator | World, *, port: int = 0) -> Iterator[Simulator]:
    """Serve from a thread of its own, for programs that have no event loop.

    Instances may be created and changed, requests read, and what hangs released meanwhile, from
    any thread; all else that is configured, before.
    """
    served = simulator if isinstance(simulator, Simulator) else Simulator(simulator)
    with in_thread(serve(served, port=port)):
        yield served
