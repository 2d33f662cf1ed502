"""Business time of the simulator: as fast as the machine's, N times as fast, standing still, or moved by hand.

It never runs backwards. Kept in memory, or in the clock file that the services under test share
(``siyu.ops.clock``): there every change begins half a second after it is asked for, so that all of them have looked at
the file again by then. Wall time in here is monotonic: somebody setting the machine's clock moves no world.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from siyu.events.business_time import SHANGHAI
from siyu.ops.clock import ClockError, FileClock, wall_ms, write_segments

NOTICE_MS = 500
"""Wall time between writing a segment and its beginning: every process looks at the file each 100 ms."""
MAX_RATE = 1_000_000.0
MAX_STEP_S = 315_360_000
"""Ten years: further is a slip of the pen."""
LAST_MS = 7_258_118_400_000
"""2200-01-01: times beyond would not fit everywhere they are written."""
_SEGMENTS_KEPT = 200


class BadClock(ValueError):
    """A change of the clock that makes no sense or cannot be made now; says why."""


@dataclass(frozen=True, slots=True)
class ClockSetting:
    """How a world's clock begins."""

    rate: float = 1.0
    """Business seconds a second of wall time; 0: it stands still until it is moved."""
    start_ms: int = 0
    """Epoch ms of business time; 0: now."""

    @classmethod
    def read(cls, mode: str, start: str = "") -> ClockSetting:
        """``real``, ``stepped``, ``paused`` or ``x60``; ``start``: ISO 8601, without a zone it counts as Beijing time.

        Raises BadClock.
        """
        return cls(_rate(mode), _instant_ms(start) if start else 0)


def _rate(mode: str) -> float:
    named = {"real": 1.0, "stepped": 0.0, "paused": 0.0}
    text = mode.strip().lower()
    if text in named:
        return named[text]
    try:
        rate = float(text.removeprefix("x").removeprefix("×"))
    except ValueError:
        raise BadClock(f"clock {mode!r}: there are real, stepped and xN, for example x60") from None
    return check_rate(rate)


def check_rate(rate: float) -> float:
    """The rate itself. Raises BadClock."""
    if not (math.isfinite(rate) and 0 <= rate <= MAX_RATE):
        raise BadClock(f"rate: 0 to {MAX_RATE:,.0f}")
    return rate


def _instant_ms(text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise BadClock(f"clock start {text!r}: an ISO 8601 time, for example 2026-01-01T09:00:00+08:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=SHANGHAI)
    millis = round(moment.timestamp() * 1000)
    if not 0 < millis < LAST_MS:
        raise BadClock(f"clock start {text!r}: between 1970 and 2200")
    return millis


def steady_wall() -> Callable[[], int]:
    """Wall time in epoch ms that follows the monotonic clock from now on."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + offset_ns) // 1_000_000


class WorldClock:
    """Business time in memory."""

    def __init__(self, setting: ClockSetting | None = None, *, wall: Callable[[], int] | None = None) -> None:
        begin = setting or ClockSetting()
        self._wall = wall or steady_wall()
        self._since_ms = self._wall()
        self._business_ms = begin.start_ms or self._since_ms
        self._rate = begin.rate

    def now_ms(self) -> int:
        """Business time, epoch ms UTC."""
        return self._business_ms + int((self._wall() - self._since_ms) * self._rate)

    @property
    def rate(self) -> float:
        """Business seconds a second of wall time; 0: it stands still."""
        return self._rate

    @property
    def file(self) -> Path | None:
        """The file that others read the same time from."""
        return None

    def set_rate(self, rate: float) -> int:
        """Runs at another rate, 0 stands still. Returns the wall ms at which it does so. Raises BadClock."""
        check_rate(rate)
        return self._begin_segment(0, rate)

    def advance(self, millis: int) -> int:
        """Jumps forward and goes on at the same rate. Returns the wall ms at which it does so. Raises BadClock."""
        if not 0 < millis <= MAX_STEP_S * 1000:
            raise BadClock(f"advance_s: more than 0, at most {MAX_STEP_S}")
        if self.now_ms() + millis > LAST_MS:
            raise BadClock("advance_s: the world ends with the year 2199")
        return self._begin_segment(millis, self.rate)

    def _begin_segment(self, jump_ms: int, rate: float) -> int:
        wall = self._wall()
        self._business_ms += int((wall - self._since_ms) * self._rate) + jump_ms
        self._since_ms, self._rate = wall, rate
        return wall


class SharedClock(WorldClock):
    """Business time in a clock file that the services under test read too."""

    def __init__(self, path: Path, setting: ClockSetting | None = None, *, wall: Callable[[], int] = wall_ms) -> None:
        """Creates the file unless somebody has: then its time is in force. Raises ClockError for a wrong one."""
        self._path = path
        self._wall = wall
        begin = setting or ClockSetting()
        if not path.exists():
            start_ms = begin.start_ms or wall()
            write_segments(path, [{"wall_ms": wall(), "business_ms": start_ms, "rate": begin.rate}])
        self._reader = FileClock(path, wall=wall)

    def now_ms(self) -> int:
        """Business time, epoch ms UTC."""
        return self._reader.now_ms()

    @property
    def rate(self) -> float:
        """Business seconds a second of wall time; 0: it stands still."""
        wall = self._wall()
        segments = self._segments()
        begun = [s for s in segments if s["wall_ms"] <= wall] or segments[:1]
        return float(begun[-1]["rate"])

    @property
    def file(self) -> Path | None:
        return self._path

    def _begin_segment(self, jump_ms: int, rate: float) -> int:
        wall = self._wall()
        segments = self._segments()
        last = segments[-1]
        if last["wall_ms"] > wall:
            raise BadClock("the clock is being moved already (a replay, or the last change): try again later")
        begin_ms = wall + NOTICE_MS
        business_ms = last["business_ms"] + int((begin_ms - last["wall_ms"]) * last["rate"]) + jump_ms
        # Readers need the segment that is in force and the next one; the rest is history for whoever looks.
        segments = [*segments[-_SEGMENTS_KEPT:], {"wall_ms": begin_ms, "business_ms": business_ms, "rate": rate}]
        write_segments(self._path, segments)
        return begin_ms

    def _segments(self) -> list[dict[str, float]]:
        try:
            segments: list[dict[str, float]] = json.loads(self._path.read_text())
        except (OSError, ValueError) as error:
            raise ClockError(f"clock file {self._path}: {type(error).__name__}") from None
        return segments


def open_clock(path: Path | None, setting: ClockSetting) -> WorldClock:
    """The clock of a simulator: in the file where there is one, else in memory. Raises ClockError."""
    return WorldClock(setting) if path is None else SharedClock(path, setting)
