"""The platform's calendar: days, weeks and months begin at midnight in Beijing (UTC+8). Epoch seconds. Pure."""

from __future__ import annotations

import calendar
from datetime import datetime

from siyu.events.business_time import SHANGHAI

DAY_S = 86_400
_OFFSET_S = 8 * 3_600


def day_of(time_s: int) -> int:
    """Number of the calendar day."""
    return (time_s + _OFFSET_S) // DAY_S


def day_start(time_s: int) -> int:
    """The midnight at or before a moment."""
    return day_of(time_s) * DAY_S - _OFFSET_S


def week_of(time_s: int) -> int:
    """Number of the calendar week, which begins on Monday (day 0 was a Thursday)."""
    return (day_of(time_s) + 3) // 7


def month_of(time_s: int) -> int:
    """Number of the calendar month."""
    date = datetime.fromtimestamp(time_s, SHANGHAI)
    return date.year * 12 + date.month - 1


def days_in_month(time_s: int) -> int:
    """28 to 31."""
    date = datetime.fromtimestamp(time_s, SHANGHAI)
    return calendar.monthrange(date.year, date.month)[1]
