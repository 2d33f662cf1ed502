"""Business time for services: the system clock, or a clock file that offsets or compresses it.

A clock file lets a whole system live in another time: a demonstration replays a year in a minute, a soak test runs a
day in an hour. It is a JSON list of segments ``{"wall_ms": …, "business_ms": …, "rate": …}``, ordered by ``wall_ms``;
the last segment that has begun counts, so time may jump forward between segments and never runs backwards inside one.
Every process that names the same file sees the same time to the millisecond.

Deadlines of the platform's own making (welcome codes, business days, bill windows) follow this clock. Tokens, rate
windows, HTTP timeouts and latencies are wall time and do not.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class ClockError(ValueError):
    """A clock file that is missing, malformed or runs backwards."""


class Clock(Protocol):
    """Where business time comes from."""

    def now_ms(self) -> int:
        """Business time, epoch ms UTC."""
        ...


class PacedClock(Clock, Protocol):
    """A clock that knows how fast it runs."""

    def pace(self) -> float:
        """Business time that passes per wall time, at most, from now until the next change of pace is known."""
        ...


def wall_ms() -> int:
    """Wall time, epoch ms UTC."""
    return time.time_ns() // 1_000_000


class SystemClock:
    """Business time is wall time: production."""

    def now_ms(self) -> int:
        """Business time, epoch ms UTC."""
        return wall_ms()

    def pace(self) -> float:
        """Business time is wall time."""
        return 1.0


class FileClock:
    """Business time from a clock file, looked at again at most every ``recheck_ms`` so that it may be extended."""

    def __init__(self, path: Path, *, recheck_ms: int = 100, wall: Callable[[], int] = wall_ms) -> None:
        """Raises ClockError when the file is missing or wrong."""
        self._path = path
        self._recheck_ms = recheck_ms
        self._wall = wall
        self._stamp: tuple[int, int] = (0, 0)
        self._checked_ms = 0
        self._segments: list[tuple[int, int, float]] = []
        self._reload()

    def now_ms(self) -> int:
        """Business time, epoch ms UTC."""
        wall = self._wall()
        if wall - self._checked_ms >= self._recheck_ms:
            self._checked_ms = wall
            self._reload()
        start_wall, start_business, rate = self._segments[0]
        for segment in self._segments:
            if segment[0] <= wall:
                start_wall, start_business, rate = segment
        return start_business + int((wall - start_wall) * rate)

    def pace(self) -> float:
        """The fastest of the segment in force and those to come."""
        self.now_ms()
        wall = self._wall()
        begun = [segment for segment in self._segments if segment[0] <= wall][-1:]
        coming = [segment for segment in self._segments if segment[0] > wall]
        return max((segment[2] for segment in (*begun, *coming)), default=self._segments[0][2])

    def _reload(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            raw = json.loads(self._path.read_text())
            segments = [(int(s["wall_ms"]), int(s["business_ms"]), float(s["rate"])) for s in raw]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ClockError(f"clock file {self._path}: {type(error).__name__}") from None
        if not segments or any(s[2] < 0 for s in segments):
            raise ClockError(f"clock file {self._path}: needs segments with rates of 0 or more")
        for before, after in itertools.pairwise(segments):
            if after[0] < before[0] or after[1] < before[1] + int((after[0] - before[0]) * before[2]):
                raise ClockError(f"clock file {self._path}: time would run backwards")
        self._segments = segments
        self._stamp = stamp


def write_segments(path: Path, segments: list[dict[str, float]]) -> None:
    """Replaces a clock file in one step, so that no reader ever sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(segments))
    draft.replace(path)


def clock_from(path: Path | None) -> PacedClock:
    """The clock a service runs on: the system's, or the file's."""
    return SystemClock() if path is None else FileClock(path)
