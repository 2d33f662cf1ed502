"""Lets customers react to touches as the effects plant it, and keeps what came of it for the truth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import msgspec

from simulator.scenario.effects import DAY_S, Effects, reaction
from simulator.scenario.shopping import Sale
from simulator.world.corp import Complaint, CorpWorld, Touch
from simulator.world.relations import ContactChange
from simulator.world.schedule import Action


@dataclass(slots=True)
class Tally:
    """What touches of one kind and strategy did. What was drawn and lies ahead is counted when it happens."""

    touches: int = 0
    replies: int = 0
    purchases: int = 0
    late_purchases: int = 0
    purchased_fen: int = 0
    purchases_to_come: int = 0
    deletions: int = 0
    complaints: int = 0
    purchases_anyway: int = 0
    """Of one's own cycle, soon after: they would have come without the touch."""


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest touch of a customer."""

    touch: Touch
    mark: str


class Reactions:
    """Of one corp's customers."""

    def __init__(
        self,
        corp: CorpWorld,
        effects: Effects,
        *,
        at: Callable[[int, Action], None],
        story_s: Callable[[float], int],
        reply: Callable[[str, str, int], bool],
        buy: Callable[[str, str, int], Sale],
    ) -> None:
        """``at`` does something at a second; ``story_s``: seconds of the clock that story seconds take.
        ``reply(staff, customer, second)`` begins a chat, ``buy(customer, cause, second)`` a purchase."""
        self._corp = corp
        self._effects = effects
        self._at = at
        self._story_s = story_s
        self._reply = reply
        self._buy = buy
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._recent: dict[str, deque[tuple[int, str]]] = {}
        """Customer → seconds and references of the touches within the window."""
        self._last: dict[str, _Last] = {}
        self._caused: list[tuple[Touch, str, Sale, bool]] = []
        self._anyway: list[tuple[Touch, str, Sale]] = []
        corp.touched.append(self._touched)

    def bought(self, customer_id: str, sale: Sale) -> None:
        """Notes a purchase that nothing caused."""
        last = self._last.get(customer_id)
        within_s = self._story_s(self._effects.anyway_days * DAY_S)
        if last is not None and sale.paid_s - last.touch.time_s <= within_s:
            self._tally(last.touch.kind, last.mark).purchases_anyway += 1
            self._anyway.append((last.touch, last.mark, sale))

    def truth(self) -> dict[str, Any]:
        """What was planted, and what came of it."""
        return {
            "planted": msgspec.to_builtins(self._effects),
            "touches": [
                {"kind": kind, "strategy": mark, **asdict(tally)}
                for (kind, mark), tally in sorted(self._tallies.items())
            ],
            "caused": [
                {**_told(touch, mark, sale), "amount_fen": sale.amount_fen, "late": late}
                for touch, mark, sale, late in self._caused
            ],
            "anyway": [_told(touch, mark, sale) for touch, mark, sale in self._anyway],
        }

    def _touched(self, touch: Touch) -> None:
        effects, corp = self._effects, self._corp
        strategy = effects.strategy_of(touch.content)
        mark = strategy.mark if strategy else ""
        recent = self._recent.setdefault(touch.customer_id, deque())
        while recent and recent[0][0] <= touch.time_s - self._story_s(effects.churn.window_days * DAY_S):
            recent.popleft()
        # The same message may reach somebody twice, through two groups: each time is a touch of its own.
        again = sum(ref == touch.ref for _, ref in recent)
        chance = corp.random("touch", touch.customer_id, touch.kind, touch.ref, again)
        drawn = reaction(effects, chance, kind=touch.kind, content=touch.content, before=len(recent))
        recent.append((touch.time_s, touch.ref))
        self._last[touch.customer_id] = _Last(touch, mark)
        tally = self._tally(touch.kind, mark)
        tally.touches += 1
        for after_s, does in (
            (drawn.reply_s, partial(self._replies, touch, tally)),
            (drawn.buy_s, partial(self._buys, touch, mark, tally, drawn.late, again)),
            (drawn.delete_s, partial(self._deletes, touch, tally)),
            (drawn.complain_s, partial(self._complains, touch, tally)),
        ):
            if after_s is not None:
                self._at(touch.time_s + max(1, self._story_s(after_s)), does)
        tally.purchases_to_come += drawn.buy_s is not None

    def _tally(self, kind: str, mark: str) -> Tally:
        return self._tallies.setdefault((kind, mark), Tally())

    def _replies(self, touch: Touch, tally: Tally, time_s: int) -> None:
        tally.replies += self._reply(touch.staff_id, touch.customer_id, time_s)

    def _buys(self, touch: Touch, mark: str, tally: Tally, late: bool, again: int, time_s: int) -> None:
        cause = f"{touch.kind}|{touch.ref}|{touch.staff_id}|{touch.time_s}|{again}"
        sale = self._buy(touch.customer_id, cause, time_s)
        tally.purchases_to_come -= 1
        tally.purchases += 1
        tally.late_purchases += late
        tally.purchased_fen += sale.amount_fen
        self._caused.append((touch, mark, sale, late))

    def _deletes(self, touch: Touch, tally: Tally, time_s: int) -> None:
        tally.deletions += self._corp.happen(
            ContactChange(time_s, self._corp.corp_id, touch.staff_id, touch.customer_id, "delete_by_customer")
        )

    def _complains(self, touch: Touch, tally: Tally, time_s: int) -> None:
        self._corp.complain(Complaint(time_s, touch.staff_id, touch.customer_id, touch.ref))
        tally.complaints += 1


def _told(touch: Touch, mark: str, sale: Sale) -> dict[str, Any]:
    return {
        "order_id": sale.order_id,
        "customer_id": sale.customer_id,
        "paid_ms": sale.paid_s * 1000,
        "touch": {
            "kind": touch.kind,
            "strategy": mark,
            "ref": touch.ref,
            "staff_id": touch.staff_id,
            "time_ms": touch.time_s * 1000,
        },
    }
