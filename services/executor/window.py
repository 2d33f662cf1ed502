"""What a lane has taken from one partition: performed in any order, committed in order.

Only a finished *prefix* may be committed, because an offset says "everything before". A slow action therefore delays
the commit of what follows it, never its performance, and at most ``window`` actions wait behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from services.executor.performer import Ticket
from siyu.events import ActionOutcome


@dataclass(frozen=True)
class DeadLetter:
    """A record that is no action, as it came, and why."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


Result = ActionOutcome | DeadLetter


@dataclass(frozen=True)
class Entry:
    """One record taken."""

    offset: int
    ticket: Ticket
    task: asyncio.Task[Result | None]
    """None: abandoned before its end."""

    def result(self) -> Result | None:
        """What came of it; None while it is under way or when it was abandoned."""
        if not self.task.done() or self.task.cancelled():
            return None
        return self.task.result()


class PartitionWindow:
    """The entries of one partition in offset order."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, entry: Entry) -> None:
        """Adds the next record."""
        assert not self._entries or entry.offset > self._entries[-1].offset, "records come in offset order"
        self._entries.append(entry)

    def finished(self) -> Iterator[tuple[Entry, Result]]:
        """The longest prefix with results."""
        for entry in self._entries:
            result = entry.result()
            if result is None:
                return
            yield entry, result

    def committed(self, count: int) -> None:
        """The first ``count`` entries are done with."""
        for _ in range(count):
            self._entries.popleft()

    def tasks(self) -> list[asyncio.Task[Result | None]]:
        """Of all entries."""
        return [entry.task for entry in self._entries]

    def stop(self) -> None:
        """Calls under way go on to their answer; what waits is given up, and left for whoever reads it next."""
        for entry in self._entries:
            entry.ticket.stopping = True
            if not entry.ticket.calling:
                entry.task.cancel()

    def abort(self) -> None:
        """Also gives up calls under way."""
        for entry in self._entries:
            entry.task.cancel()
