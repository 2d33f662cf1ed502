"""The next timers of one partition in order of due time, of however many there are on disk.

Only a window of the nearest is in memory; the states on disk hold them all. A due entry is a hint: the caller looks the
key's state up and finds whether the timer still stands.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice
from typing import Final

from siyu.stream.store import StateStore

NEVER: Final = 1 << 63
_WINDOW = 10_000


class DueTimers:
    """(due, key) entries below ``horizon`` are in memory; ``next_ms`` tells without looking whether any can be due."""

    def __init__(self, store: StateStore, *, in_use: bool) -> None:
        self._store = store
        self._near: list[tuple[int, bytes]] = []
        self._far: list[tuple[int, bytes]] = []
        """Set since the last write to disk, at or beyond the horizon: the disk does not show them yet."""
        self._horizon = 0
        self.next_ms = 0 if in_use else NEVER
        """No timer is due before this; 0 until the first look at the disk."""
        self._taken: list[tuple[int, bytes]] = []
        self._dropped: list[tuple[int, bytes]] = []
        self._most = 2 * _WINDOW

    def __len__(self) -> int:
        return len(self._near)

    def set(self, dues: Iterable[int], key: bytes) -> None:
        for due_ms in dues:
            if due_ms < self._horizon:
                heapq.heappush(self._near, (due_ms, key))
            else:
                self._far.append((due_ms, key))
            self.next_ms = min(self.next_ms, due_ms)
        if len(self._near) > self._most:
            self._shrink()

    def drop(self, dues: Iterable[int], key: bytes) -> None:
        """These stand no more: the disk forgets them; in memory they are found out when they come up."""
        self._dropped += [(due_ms, key) for due_ms in dues]

    def committed(self) -> list[tuple[int, bytes]]:
        """The batch counts: its entries that were taken or dropped, for the disk to forget."""
        over = self._taken + self._dropped
        self._taken.clear()
        self._dropped.clear()
        return over

    def take(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to ``limit`` of the earliest entries that are due at ``until_ms``."""
        taken: list[tuple[int, bytes]] = []
        while len(taken) < limit:
            if not self._near and self._horizon <= until_ms:
                self._look_further()
            if not self._near or self._near[0][0] > until_ms:
                break
            entry = heapq.heappop(self._near)
            if not taken or taken[-1] != entry:
                taken.append(entry)
        self._taken += taken
        self.next_ms = self._near[0][0] if self._near else self._horizon
        return taken

    def give_back(self, entries: list[tuple[int, bytes]]) -> None:
        """Undoes the end of the last ``take``."""
        del self._taken[-len(entries) :]
        for due_ms, key in entries:
            self.set((due_ms,), key)

    def precedes(self, entry: tuple[int, bytes]) -> bool:
        """Whether one that is not taken comes before ``entry``."""
        return bool(self._near) and self._near[0] < entry

    def due(self, now_ms: int) -> bool:
        return self.next_ms <= now_ms

    def written(self) -> None:
        """The disk now shows all that was set."""
        self._far.clear()

    def _shrink(self) -> None:
        """Keeps the nearest window, whole due times only; the rest is on disk, or will be with the next write."""
        self._near.sort()
        last_ms = self._near[_WINDOW - 1][0]
        keep = bisect_left(self._near, (last_ms + 1, b""))
        if keep < len(self._near):
            self._horizon = self._near[keep][0]
            self._far += self._near[keep:]
            del self._near[keep:]
        self._most = max(2 * _WINDOW, 2 * len(self._near))

    def _look_further(self) -> None:
        """Moves the horizon beyond the next window on disk, never between two entries of one due time."""
        entries = self._store.timers(self._horizon)
        near = list(islice(entries, _WINDOW))
        self._horizon = NEVER
        for due_ms, key in entries:
            if due_ms != near[-1][0]:
                self._horizon = due_ms
                break
            near.append((due_ms, key))
        self._near = [*near, *(entry for entry in self._far if entry[0] < self._horizon)]
        heapq.heapify(self._near)
        self._far = [entry for entry in self._far if entry[0] >= self._horizon]
