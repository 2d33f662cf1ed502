"""Throws Kafka clients away without being thrown away with them.

aiokafka awaits requests that it has just cancelled, so that its ``stop`` may end with a CancelledError that nobody
asked for: it would end whoever waits for it, silently. So a client is stopped in a task of its own, and then its
connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def close_client(client: AIOKafkaConsumer | AIOKafkaProducer, seconds: float) -> str | None:
    """Stops it within so many seconds of wall time, or drops its connections; what went wrong, None: nothing.

    Raises CancelledError only when the caller is to be cancelled.
    """
    problem = await _ended(client.stop(), seconds)
    if problem is not None:
        parts: Any = client
        connections = parts._client if isinstance(client, AIOKafkaConsumer) else parts.client
        await _ended(connections.close(), seconds)
    return problem


async def _ended(work: Coroutine[Any, Any, None], seconds: float) -> str | None:
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        late = not task.done()
        task.cancel()
    if late:
        return TimeoutError.__name__
    if task.cancelled():
        return asyncio.CancelledError.__name__
    error = task.exception()
    return None if error is None else type(error).__name__


def asked_to_end() -> bool:
    """Of a CancelledError that was just caught: whether it was meant for the running task, and not for a request of a
    client that was being thrown away."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
