"""``python -m simulator``: settings → build → run. ``siyu sim run`` is the same with options."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from simulator.pay.merchant import MerchantsError
from simulator.retail_data import RetailDataError
from simulator.scenario import CannotPlay
from simulator.sender import BadUrl
from simulator.server import serve
from simulator.settings import SimulatorSettings
from siyu.ops.clock import ClockError
from siyu.ops.corps import CorpsError
from siyu.ops.logging import configure_logging
from siyu.ops.signals import async_stop_event


def main() -> int:
    """Runs until SIGTERM or SIGINT; ``--help`` lists the settings."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write("python -m simulator: a WeCom stand-in. Settings (environment variables):\n\n")
        for name, info in SimulatorSettings.model_fields.items():
            sys.stdout.write(f"  {name:26} {info.default!s:28} {info.description}\n")
        return 0
    return play(SimulatorSettings())


def play(settings: SimulatorSettings) -> int:
    """Runs until SIGTERM or SIGINT; 1 for what cannot be run or broke, said in one line on stderr."""
    configure_logging("simulator", settings.log_level)

    async def run() -> int:
        return await serve(settings, async_stop_event())

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    except (BadUrl, CorpsError, ClockError, MerchantsError, RetailDataError, CannotPlay, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
