"""uvicorn inside a service that has more to start and stop than it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn


class GuestServer(uvicorn.Server):
    """Leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield
