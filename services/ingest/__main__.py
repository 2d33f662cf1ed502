"""`python -m services.ingest`: settings, build, run until SIGTERM or SIGINT. Exit status 2: a setting is wrong."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from services.ingest.service import CannotStart, IngestService
from services.ingest.settings import Settings
from siyu.ops.corps import CorpsError
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import async_stop_event
from siyu.wecom.crypto import BadKey


async def _run(settings: Settings) -> None:
    await IngestService(settings).run(async_stop_event())


def main() -> int:
    """Exit status."""
    settings = Settings()
    configure_logging("ingest", settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except (CannotStart, CorpsError, BadKey) as error:
        get_logger().error("cannot_start", error_detail=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
