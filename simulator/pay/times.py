"""Times as WeChat Pay writes them: RFC 3339 in Beijing time (UTC+8); and its business days."""

from __future__ import annotations

import datetime

_BEIJING = datetime.timezone(datetime.timedelta(hours=8))
DAY_S = 86_400
_OFFSET_S = 8 * 3_600
_LATEST_S = 253_000_000_000
"""In the year 9987: beyond it a date cannot be written."""


def rfc3339(time_s: int) -> str:
    """Epoch seconds as ``2026-11-21T20:42:00+08:00``."""
    return datetime.datetime.fromtimestamp(time_s, _BEIJING).isoformat(timespec="seconds")


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
    time_s = (day.toordinal() - datetime.date(1970, 1, 1).toordinal()) * DAY_S - _OFFSET_S
    return time_s if time_s >= 0 else None


def day_start(time_s: int) -> int:
    """The first second of the Beijing day a moment lies in."""
    return (time_s + _OFFSET_S) // DAY_S * DAY_S - _OFFSET_S


def day_text(time_s: int) -> str:
    """The Beijing day of a moment, ``20261121``."""
    return datetime.datetime.fromtimestamp(time_s, _BEIJING).strftime("%Y%m%d")
