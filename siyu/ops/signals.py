"""SIGTERM and SIGINT become an event that a loop looks at: services stop between two units of work."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_event() -> threading.Event:
    """For synchronous services: set by the first signal; a second one ends the process at once."""
    event = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        if event.is_set():
            raise SystemExit(128 + number)
        event.set()

    for number in _SIGNALS:
        signal.signal(number, handle)
    return event


def async_stop_event() -> asyncio.Event:
    """For asyncio services; call inside the running loop."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, event.set)
    return event
