"""What customers do about a touch, planted so that analyses can be held against it. Pure.

A customer buys by their own cycle whether anybody writes to them or not: that is the world without touches. A touch
adds to it, never takes away: with some probability it causes one more purchase (*reach*, plus the lift of the
*strategy* that its text is marked with), a reply, a deletion or a complaint. So every purchase is either caused by one
known touch or would have happened anyway, and the difference is the effect, person by person.

All chance comes from the seed, the customer and the touch: the same touches make the same world.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Annotated

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Lift = Annotated[float, msgspec.Meta(ge=-1, le=1)]
Seconds = Annotated[int, msgspec.Meta(ge=1)]
DAY_S = 86_400


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A way of writing, known by a mark in the text."""

    mark: Annotated[str, msgspec.Meta(min_length=1, max_length=30)]
    """Such as ``#A``; the first strategy whose mark the text contains counts."""
    buy_lift: Lift = 0.0
    """Added to the reach's, for those who were reached."""
    reply_lift: Lift = 0.0
    churn_lift: Lift = 0.0


class Churn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Deletions that touches cause."""

    first: Share = 0.002
    """Probability at the first touch of a window."""
    each: Share = 0.003
    """More, for each touch before it in the window."""
    window_days: Annotated[float, msgspec.Meta(gt=0, le=365)] = 7.0


class Complaints(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reports to the platform that touches cause."""

    first: Share = 0.0002
    each: Share = 0.0005


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When reactions come, story time."""

    reply_median_s: Seconds = 600
    buy_median_s: Seconds = 6 * 3600
    late_share: Share = 0.2
    """Of caused purchases come much later:"""
    late_days: tuple[float, float] = (8.0, 60.0)
    """between so many days after the touch."""
    delete_median_s: Seconds = 1_800
    spread: Annotated[float, msgspec.Meta(ge=0, le=3)] = 1.0
    """Sigma of the logarithm."""

    def __post_init__(self) -> None:
        if not 0 <= self.late_days[0] <= self.late_days[1] <= 366:
            raise ValueError("late_days: from and to, ascending, within a year")


class Effects(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that is planted. Probabilities per touch."""

    reach_buy_lift: Lift = 0.02
    """More purchases when reached, whatever is said."""
    reply: Share = 0.05
    strategies: tuple[Strategy, ...] = ()
    kinds: dict[str, Annotated[float, msgspec.Meta(ge=0, le=10)]] = {}
    """Factor on the lifts by kind of touch (``mass``, ``welcome``, ``moment``, ``group``); 1 where silent."""
    fatigue: Share = 0.8
    """Factor on the lifts for each touch before in the churn's window."""
    churn: Churn = Churn()
    complaints: Complaints = Complaints()
    timing: Timing = Timing()
    anyway_days: Annotated[float, msgspec.Meta(gt=0, le=366)] = 7.0
    """A purchase of one's own so soon after a touch is told as one that would have happened anyway."""

    def strategy_of(self, content: str) -> Strategy | None:
        """The strategy a text follows."""
        return next((strategy for strategy in self.strategies if strategy.mark in content), None)

    def factor(self, kind: str, before: int) -> float:
        """What kind and fatigue leave of a lift."""
        return float(self.kinds.get(kind, 1.0) * self.fatigue**before)

    def buy(self, kind: str, content: str, before: int) -> float:
        """Probability that this touch causes a purchase. ``before``: touches in the window before it."""
        strategy = self.strategy_of(content)
        lift = self.reach_buy_lift + (strategy.buy_lift if strategy else 0.0)
        return _share(lift * self.factor(kind, before))

    def answer(self, kind: str, content: str, before: int) -> float:
        """Probability of a reply."""
        strategy = self.strategy_of(content)
        return _share((self.reply + (strategy.reply_lift if strategy else 0.0)) * self.factor(kind, before))

    def delete(self, content: str, before: int) -> float:
        """Probability that this touch makes the customer delete the staff member."""
        strategy = self.strategy_of(content)
        return _share(self.churn.first + self.churn.each * before + (strategy.churn_lift if strategy else 0.0))

    def report(self, before: int) -> float:
        """Probability of a complaint."""
        return _share(self.complaints.first + self.complaints.each * before)


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a touch does: seconds of story time until each thing, None for what it does not do."""

    reply_s: int | None = None
    buy_s: int | None = None
    late: bool = False
    delete_s: int | None = None
    complain_s: int | None = None


def reaction(effects: Effects, chance: random.Random, *, kind: str, content: str, before: int) -> Reaction:
    """Draws one. The order of the draws is fixed, so that probabilities can change without moving other outcomes."""
    reply, buy, late, delete, report = (chance.random() for _ in range(5))
    times = [chance.gauss(0.0, effects.timing.spread) for _ in range(4)]
    late_at = chance.random()
    timing = effects.timing

    def after(median_s: int, number: int) -> int:
        return max(1, round(median_s * math.exp(times[number])))

    buys = buy < effects.buy(kind, content, before)
    comes_late = late < timing.late_share
    first, last = timing.late_days
    buy_s = round((first + late_at * (last - first)) * DAY_S) if comes_late else after(timing.buy_median_s, 1)
    return Reaction(
        reply_s=after(timing.reply_median_s, 0) if reply < effects.answer(kind, content, before) else None,
        buy_s=max(1, buy_s) if buys else None,
        late=buys and comes_late,
        delete_s=after(timing.delete_median_s, 2) if delete < effects.delete(content, before) else None,
        complain_s=after(timing.delete_median_s, 3) if report < effects.report(before) else None,
    )


def _share(probability: float) -> float:
    return min(1.0, max(0.0, probability))
