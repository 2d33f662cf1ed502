"""What was used of sliding and calendar windows: never less than the truth, and little memory.

**Sliding.** The platform counts a call at some instant between our sending it and its answer, which we cannot see. So a
call counts until its answer, rounded up to the end of a bucket, plus the window. A bucket is 1/240 of its window, so
rounding costs at most 0.42 % of a window's budget, and a series has at most 241 entries a window, whatever the limit.
One series serves all windows of a level: an entry that has left one window is merged into the coarser buckets of the
next.

**Calendar.** Days and months of Asia/Shanghai. Near an edge a call counts on both sides of it.

Times are business time, epoch ms UTC. A call answered in the ms ``t`` ended before ``t + 1``.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from siyu.events.business_time import SHANGHAI, business_day_start_ms

BUCKETS = 240
DAY_MS = 86_400_000
UNITS_BITS = 22
UNITS_MASK = (1 << UNITS_BITS) - 1
"""An entry is ``end of its bucket << 22 | units``: sorted by time, eight bytes, and nothing to pack for the next owner.
More than 4,194,303 units in one bucket take several entries."""
_FEW = 8
"""Up to so many entries are counted at every look; more are counted as they come and go."""

Span = tuple[int, int]
"""Length and bucket of a sliding window, ms."""


def span_of(length_ms: int) -> Span:
    return length_ms, -(-length_ms // BUCKETS)


class History:
    """The ends of calls. ``spans`` is always the same, by ascending length; after a change of it, call ``rebuild``."""

    __slots__ = ("_marks", "entries")

    def __init__(self) -> None:
        self.entries = array("q")
        self._marks: list[int] | None = None
        # For each span: index of the first entry that still counts, and the units from there on.

    def add(self, ended_ms: int, units: int, bucket_ms: int) -> None:
        """So many units ended; the time may lie before earlier ones or ahead."""
        end = (ended_ms // bucket_ms + 1) * bucket_ms
        entries = self.entries
        if entries and units <= UNITS_MASK - (entries[-1] & UNITS_MASK) and entries[-1] >> UNITS_BITS == end:
            entries[-1] += units  # nearly always
            marks = self._marks
            if marks is None:
                return
            if max(marks[::2]) < len(entries):
                for mark in range(1, len(marks), 2):
                    marks[mark] += units
            else:
                self._marks = None
            return
        while units > 0:
            part = min(units, UNITS_MASK)
            at = len(entries)
            while at and entries[at - 1] >> UNITS_BITS > end:  # only what a takeover assumed lies ahead: few
                at -= 1
            if at and entries[at - 1] >> UNITS_BITS == end and (entries[at - 1] & UNITS_MASK) + part <= UNITS_MASK:
                at -= 1
                entries[at] += part
            else:
                entries.insert(at, end << UNITS_BITS | part)
            units -= part
            if self._marks is not None:
                for mark in range(0, len(self._marks), 2):
                    if self._marks[mark] > at:  # an entry so old that it left this window already
                        self._marks = None
                        break
                    self._marks[mark + 1] += part

    def rebuild(self) -> None:
        """The spans are others from now on."""
        self._marks = None

    def used(self, now_ms: int, spans: Sequence[Span]) -> list[int]:
        """Units that count against each span at this instant; forgets what counts against none."""
        entries = self.entries
        marks = self._marks
        if marks is None:
            if len(entries) <= _FEW:
                return self._count_few(now_ms, spans)
            marks = self._marks = [0, sum(entry & UNITS_MASK for entry in entries)] * len(spans)
        moved = False
        size = len(entries)
        before = marks[::2]
        for index, (length, _) in enumerate(spans):
            mark = 2 * index
            head = marks[mark]
            last = (now_ms - length) << UNITS_BITS | UNITS_MASK
            if head < size and entries[head] <= last:
                moved = True
                gone = 0
                while head < size and entries[head] <= last:
                    gone += entries[head] & UNITS_MASK
                    head += 1
                marks[mark] = head
                marks[mark + 1] -= gone
        if moved:
            self._coarsen(before, marks, spans)
        return marks[1::2]

    def freed_at(self, units: int, index: int, spans: Sequence[Span], now_ms: int) -> int:
        """When so many units of the span will have left it; 0 when what is here is not enough."""
        length = spans[index][0]
        start = self._marks[2 * index] if self._marks is not None else 0
        for at in range(start, len(self.entries)):
            end = self.entries[at] >> UNITS_BITS
            if end + length > now_ms:
                units -= self.entries[at] & UNITS_MASK
                if units <= 0:
                    return end + length
        return 0

    def pack(self) -> bytes:
        """Eight bytes an entry, little endian."""
        if sys.byteorder == "little":
            return self.entries.tobytes()
        swapped = self.entries[:]
        swapped.byteswap()
        return swapped.tobytes()

    def unpack(self, packed: bytes) -> None:
        """Takes over what ``pack`` gave. Raises ValueError when it cannot be that."""
        entries = array("q")
        entries.frombytes(packed)
        if sys.byteorder != "little":
            entries.byteswap()
        previous = 0
        for entry in entries:
            if entry >> UNITS_BITS < previous or not entry & UNITS_MASK:
                raise ValueError("its calls are not in order")
            previous = entry >> UNITS_BITS
        self.entries = entries
        self._marks = None

    def _count_few(self, now_ms: int, spans: Sequence[Span]) -> list[int]:
        entries = self.entries
        if not spans:
            return []
        gone = 0
        while gone < len(entries) and (entries[gone] >> UNITS_BITS) + spans[-1][0] <= now_ms:
            gone += 1
        if gone:
            del entries[:gone]
        return [
            sum(entry & UNITS_MASK for entry in entries if (entry >> UNITS_BITS) + length > now_ms)
            for length, _ in spans
        ]

    def _coarsen(self, before: list[int], marks: list[int], spans: Sequence[Span]) -> None:
        """Entries that left a window are merged where the next longer one needs no more detail: into the later of two,
        so a call may count longer than it must, never shorter."""
        entries = self.entries
        for index in range(len(spans) - 1):
            region = marks[2 * index + 2]  # where the next longer window begins
            low, high = max(before[index], region), marks[2 * index]
            if high <= low:
                continue
            low = max(low - 1, region)
            bucket = spans[index + 1][1]
            merged: list[int] = []
            for entry in entries[low:high]:
                if merged and ((merged[-1] >> UNITS_BITS) - 1) // bucket == ((entry >> UNITS_BITS) - 1) // bucket:
                    units = (merged[-1] & UNITS_MASK) + (entry & UNITS_MASK)
                    if units <= UNITS_MASK:
                        merged[-1] = entry & ~UNITS_MASK | units
                        continue
                merged.append(entry)
            fewer = high - low - len(merged)
            if fewer:
                entries[low:high] = array("q", merged)
                for shorter in range(index + 1):
                    marks[2 * shorter] -= fewer
        forgotten = marks[-2]
        if forgotten:
            del entries[:forgotten]
            for mark in range(0, len(marks), 2):
                marks[mark] -= forgotten


Unit = Literal["day", "month"]


def period_start(unit: Unit, at_ms: int) -> int:
    """Epoch ms of the beginning of the Asia/Shanghai day or month that holds the instant."""
    day = business_day_start_ms(at_ms)
    if unit == "day":
        return day
    return day - (datetime.fromtimestamp(day // 1000, SHANGHAI).day - 1) * DAY_MS


def next_period(unit: Unit, start_ms: int) -> int:
    """The beginning of the period after the one that begins at ``start_ms``."""
    return period_start(unit, start_ms + (DAY_MS if unit == "day" else 32 * DAY_MS))


def periods_at(unit: Unit, now_ms: int, edge_ms: int) -> tuple[tuple[int, ...], int]:
    """The beginnings of the periods a call counts in now (two within ``edge_ms`` of an edge), and until when that is
    so."""
    first, second = period_start(unit, now_ms - edge_ms), period_start(unit, now_ms + edge_ms)
    if first == second:
        return (first,), next_period(unit, first) - edge_ms
    return (first, second), second + edge_ms
