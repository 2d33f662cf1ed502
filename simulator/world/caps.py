"""How often a customer may be reached in a business day, a week or a month. Pure."""

from __future__ import annotations

from typing import Literal

from simulator.world.days import day_of, days_in_month, month_of, week_of

Period = Literal["day", "week", "month"]


class Caps:
    """Counts of the current period only: what a customer got in an earlier one does not matter any more."""

    def __init__(self, period: Period, most: int = 0) -> None:
        """``most`` 0: as many in a month as it has days; 7 a week; 1 a day (fact sheet 3.4)."""
        self.period = period
        self._most = most
        self._now = -1
        self._day = -1
        self._allowed = 0
        self._counts: dict[str, int] = {}

    def take(self, who: str, time_s: int) -> bool:
        """Counts one for ``who``; False when the cap is reached. Time goes forward; a straggler of the last period
        counts in this one."""
        if day_of(time_s) > self._day:
            self._turn(time_s)
        count = self._counts.get(who, 0)
        if count >= self._allowed:
            return False
        self._counts[who] = count + 1
        return True

    def _turn(self, time_s: int) -> None:
        self._day = day_of(time_s)
        match self.period:
            case "day":
                now, allowed = self._day, 1
            case "week":
                now, allowed = week_of(time_s), 7
            case "month":
                now, allowed = month_of(time_s), days_in_month(time_s)
        self._allowed = self._most or allowed
        if now != self._now:
            self._now = now
            self._counts.clear()
