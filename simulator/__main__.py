"""Runs the simulator as a program; README.md describes it."""

import argparse
import asyncio
import json
import signal
import time

import msgspec

from . import scenarios
from .clock import Clock, ManualClock, SpedClock
from .server import serve
from .simulator import Simulator
from .world import World


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--scenario",
        default="demo",
        help=f"one of {', '.join(scenarios.NAMED)}, or a YAML or JSON file",
    )
    parser.add_argument("--clock", choices=("real", "manual"), default="real")
    parser.add_argument("--speed", type=float, default=1.0, help="of the real clock")
    parser.add_argument("--quota", type=int, help="requests in 5 minutes for each user")
    return parser


async def run(options: argparse.Namespace) -> None:
    clock: Clock = time.time
    if options.clock == "manual":
        clock = ManualClock(time.time())
    elif options.speed != 1.0:
        clock = SpedClock(options.speed)
    simulator = Simulator(World(clock))
    simulator.limit.quota = options.quota
    scenarios.load(simulator, options.scenario)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with serve(simulator, host=options.host, port=options.port, control=True) as served:
        ready = {
            "url": served.url,
            "api": served.url + "/accounts/{account_id}",
            "control": served.url.removesuffix("/client/v4") + "/_control",
            "accounts": list(simulator.world.accounts),
        }
        print(json.dumps(ready), flush=True)
        await stop.wait()


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
