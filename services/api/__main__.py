"""`python -m services.api`: settings, build, run until SIGTERM or SIGINT. Exit status 2: a setting is wrong."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from services.api.service import ApiService, CannotStart
from services.api.settings import Settings
from siyu.limits import LimitsError
from siyu.ops.api_tokens import TokensError
from siyu.ops.clock import ClockError
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import async_stop_event


async def _run(settings: Settings) -> None:
    await ApiService(settings).run(async_stop_event())


def main() -> int:
    """Exit status."""
    settings = Settings()
    configure_logging("api", settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except (CannotStart, TokensError, LimitsError, ClockError) as error:
        get_logger().error("cannot_start", error_detail=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
