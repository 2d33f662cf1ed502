"""A producer asks who leads its partitions at a pace, not as fast as it can.

While a partition has no leader, aiokafka's sender asks for the metadata again as soon as the last answer is there, or
as soon as a broker that is away has refused the connection: thousands of times a second, each time with two lines in
the log, for as long as it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

METADATA_EVERY_SECONDS = 0.1
"""aiokafka's own pause between attempts, where it makes one."""


def paced(ask: Callable[[], Awaitable[bool]], seconds: float) -> Callable[[], asyncio.Future[bool]]:
    """``ask``, whose answer is there no sooner than so many seconds after it was asked for. Who asks meanwhile gets the
    same answer."""
    under_way: asyncio.Task[bool] | None = None

    async def answer() -> bool:
        found, _ = await asyncio.gather(ask(), asyncio.sleep(seconds))
        return found

    def asked() -> asyncio.Future[bool]:
        nonlocal under_way
        if under_way is None or under_way.done():
            under_way = asyncio.ensure_future(answer())
        # Whoever gives up waiting must not take the answer from the others.
        return asyncio.shield(under_way)

    return asked


def pace_metadata(producer: Any) -> None:
    """Of an AIOKafkaProducer that has not been started."""
    producer.client.force_metadata_update = paced(producer.client.force_metadata_update, METADATA_EVERY_SECONDS)
