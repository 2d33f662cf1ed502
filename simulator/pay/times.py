"""Times as WeChat Pay writes them: RFC 3339 in Beijing time (UTC+8)."""

from __future__ import annotations

import datetime

from siyu.events.business_time import SHANGHAI

_LATEST_S = 253_000_000_000
"""In the year 9987: beyond it a date cannot be written."""


def rfc3339(time_s: int) -> str:
    """Epoch seconds as ``2026-11-21T20:42:00+08:00``."""
    return datetime.datetime.fromtimestamp(time_s, SHANGHAI).isoformat(timespec="seconds")


def parse_rfc3339(text: str) -> int | None:
    """Epoch seconds, fractions dropped; None for what is no time with its zone."""
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if parsed.tzinfo is None or len(text) < len("2015-05-20T13:29:35Z"):
        return None
    try:
        time_s = int(parsed.timestamp())
    except (OverflowError, ValueError):
        return None
    return time_s if 0 <= time_s <= _LATEST_S else None


def parse_day(text: str) -> int | None:
    """The first second of ``2026-11-21`` in Beijing; None for what is no day."""
    if len(text) != len("2026-11-21"):
        return None
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        return None
    time_s = int(datetime.datetime(day.year, day.month, day.day, tzinfo=SHANGHAI).timestamp())
    return time_s if time_s >= 0 else None


def day_text(time_s: int) -> str:
    """The Beijing day of a moment, ``20261121``."""
    return datetime.datetime.fromtimestamp(time_s, SHANGHAI).strftime("%Y%m%d")
