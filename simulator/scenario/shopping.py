"""Who buys what and when: cycles of use that run whether anybody writes or not, and the bills that show it.

A buyer uses one item up in a time of their own and buys it again around the day it runs out. All of it is arithmetic
over the customer's index, so that a day's purchases of eight million people are found without keeping any of them.
Times are story days since the story began, or epoch seconds where the name says so; amounts are fen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from simulator.scenario.file import Shopping
from simulator.scenario.story_time import DAY_S
from simulator.world.bills import COLLECTION, REFUND, REFUND_DONE, Bill, BillBook
from simulator.world.corp import CorpWorld
from simulator.world.idspace import Array, key_of, uniform
from simulator.world.people import ACTIVE
from simulator.world.schedule import Action
from simulator.world.tills import Till, Tills

_LEAST_CYCLE_DAYS = 1.0
_REFUND_REJECTED = 6
_LIVE_ROOM, _MINI_PROGRAM = 2, 15
_COLLECTED = (0, 1, 1, 1, 3, 14)
"""Payment types of a collecting staff member (fact sheet 3.10): mostly their code."""


@dataclass(frozen=True)
class Due:
    """Purchases of a stretch of time, in order of time."""

    days: npt.NDArray[np.float64]
    """Story days since the beginning."""
    customers: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    """Which of the customer's purchases it is."""


class Cycles:
    """The purchases that happen anyway."""

    def __init__(self, shopping: Shopping, *, seed: int, corp_id: str) -> None:
        self._shopping = shopping
        self._keys = {what: key_of(seed, corp_id, "cycle", what) for what in ("buyer", "item", "u", "v", "phase", "k")}
        shares = np.array([item.share for item in shopping.items] or [1.0])
        self._edges = np.cumsum(shares / shares.sum())
        self._customers = np.empty(0, np.int64)
        self._items = np.empty(0, np.int64)
        self._cycles = np.empty(0)
        self._phases = np.empty(0)

    def welcome(self, first: int, end: int) -> None:
        """Customers ``first`` to ``end`` (excluded) are there from now on: those among them who buy do."""
        if not self._shopping.items:
            return
        found = []
        for start in range(first, end, 1 << 20):
            indexes = np.arange(start, min(start + (1 << 20), end))
            found.append(indexes[uniform(indexes, self._keys["buyer"]) < self._shopping.buyers_share])
        buyers = np.concatenate(found) if found else np.empty(0, np.int64)
        items = np.minimum(np.searchsorted(self._edges, uniform(buyers, self._keys["item"])), len(self._edges) - 1)
        self._customers = np.concatenate((self._customers, buyers))
        self._items = np.concatenate((self._items, items))
        self._cycles = np.concatenate((self._cycles, self._cycles_of(buyers, items)))
        self._phases = np.concatenate((self._phases, uniform(buyers, self._keys["phase"])))

    def due(self, first_day: float, end_day: float) -> Due:
        """What is bought from ``first_day`` on, before ``end_day``."""
        near = np.array([item.early_late_share for item in self._shopping.items])[self._items] * self._cycles
        rounds = int((end_day - first_day) / _LEAST_CYCLE_DAYS) + 3
        base = np.floor(first_day / self._cycles - self._phases).astype(np.int64)
        days, chosen, numbers = [], [], []
        for step in range(-1, rounds):
            number = base + step
            shift = uniform(self._customers * 1_000_003 + number, self._keys["k"]) * 2 - 1
            day = (number + self._phases) * self._cycles + shift * near
            hits = np.flatnonzero((day >= first_day) & (day < end_day))
            days.append(day[hits])
            chosen.append(hits)
            numbers.append(number[hits])
            if step > 0 and not (base + step <= (end_day / self._cycles - self._phases + 0.5)).any():
                break
        day = np.concatenate(days)
        order = np.argsort(day, kind="stable")
        buyers = np.concatenate(chosen)[order]
        return Due(day[order], self._customers[buyers], self._items[buyers], np.concatenate(numbers)[order])

    def depletes_on(self, customer: int, item: int, number: int) -> float:
        """The story day on which what was bought with purchase ``number`` runs out."""
        of_one = np.array([customer])
        cycle = float(self._cycles_of(of_one, np.array([item]))[0])
        return (number + 1 + float(uniform(of_one, self._keys["phase"])[0])) * cycle

    def item_of(self, customer: int) -> int:
        """What a customer would buy."""
        share = float(uniform(np.array([customer]), self._keys["item"])[0])
        return min(int(np.searchsorted(self._edges, share)), len(self._edges) - 1)

    def _cycles_of(self, customers: Array, items: Array) -> npt.NDArray[np.float64]:
        mean = np.array([item.cycle_days for item in self._shopping.items])[items]
        spread = np.array([item.cycle_spread for item in self._shopping.items])[items]
        u, v = uniform(customers, self._keys["u"]), uniform(customers, self._keys["v"])
        normal = np.sqrt(-2.0 * np.log(1.0 - u)) * np.cos(2.0 * math.pi * v)
        return np.asarray(np.maximum(_LEAST_CYCLE_DAYS, mean * np.exp(spread * normal)))


@dataclass(frozen=True, slots=True)
class Sale:
    """One purchase, for the truth."""

    order_id: str
    customer_id: str
    """Who really bought, whatever the bill says."""
    item: int
    amount_fen: int
    paid_s: int
    depletes_s: int
    """0: nobody's cycle."""
    channel: str
    """``bill`` or ``pay``: which books it is in."""


class Shop:
    """Turns purchases of one corp into bills and payments, and some of them back."""

    def __init__(
        self,
        corp: CorpWorld,
        shopping: Shopping,
        *,
        bill_lag_ms: int,
        at: Callable[[int, Action], None],
        story_s: Callable[[float], int],
        colleague: Callable[[str, float], str],
        anybody: Callable[[float], str],
    ) -> None:
        """``at`` does something at a second; ``story_s``: seconds of the clock that story seconds take; ``colleague``
        and ``anybody`` choose staff."""
        self._corp = corp
        self._shopping = shopping
        self._lag_ms = bill_lag_ms
        self._at = at
        self._story_s = story_s
        self._colleague = colleague
        self._anybody = anybody
        self.sales: list[Sale] = []

    def sell(self, time_s: int, customer_id: str, item: int, cause: str, *, depletes_s: int = 0) -> Sale:
        """A purchase of one customer, ``""`` for a stranger. ``cause``, with the customer, tells it from all others."""
        corp, shopping = self._corp, self._shopping
        chance = corp.random("purchase", customer_id, cause)
        low, high = shopping.items[item].price_fen if shopping.items else (900, 90_000)
        amount_fen = round(math.exp(chance.uniform(math.log(low), math.log(high))))
        number = key_of(corp.seed, corp.corp_id, "order", customer_id, cause)
        order_id = f"T{number:016X}"
        fate, pick = chance.random(), chance.random()
        collector, payer, kind, hidden = self._serving(customer_id, pick), customer_id, chance.choice(_COLLECTED), False
        edge = shopping.colleague_share
        online = False
        if fate < edge:
            collector = self._colleague(collector, pick)
        elif fate < (edge := edge + shopping.online_share):
            online, collector, kind = True, "", chance.choice((_LIVE_ROOM, _MINI_PROGRAM))
        elif fate < (edge := edge + shopping.payer_unknown_share):
            payer = ""
        elif fate < edge + shopping.hidden_share:
            hidden = True
        tills = corp.of(Tills).open
        by_pay = online and bool(customer_id) and bool(tills) and chance.random() < shopping.pay_share
        sale = Sale(order_id, customer_id, item, amount_fen, time_s, depletes_s, "pay" if by_pay else "bill")
        self.sales.append(sale)
        refunds = list(self._refunds(sale, number))
        if by_pay:
            till = tills[number % len(tills)]
            till.paid(corp, amount_fen=amount_fen, time_s=time_s, out_trade_no=order_id, external_userid=customer_id)
            for after_s, refund_id, fen, status in refunds:
                if status == REFUND_DONE:
                    self._at(time_s + after_s, partial(self._refund_at, till, order_id, refund_id, fen))
            return sale
        paid = Bill(
            corp_id=corp.corp_id,
            bill_type=COLLECTION,
            transaction_id=f"42{number:020d}",
            time_s=time_s,
            visible_ms=time_s * 1000 + chance.randint(0, self._lag_ms),
            out_trade_no=order_id,
            amount_fen=amount_fen,
            payment_type=kind,
            customer_id=payer,
            staff_id=collector,
            hidden=hidden,
        )
        corp.of(BillBook).add([paid])
        for after_s, refund_id, fen, status in refunds:
            self._at(time_s + after_s, partial(self._refund, paid, refund_id, fen, status))
        return sale

    def _refunds(self, sale: Sale, number: int) -> Iterator[tuple[int, str, int, int]]:
        """(seconds after the payment, number, fen, status) of what goes back."""
        rules = self._shopping.refunds
        chance = self._corp.random("refund", sale.order_id)
        if chance.random() >= rules.share:
            return
        parts = [sale.amount_fen]
        if chance.random() < rules.partial_share and sale.amount_fen > 3:
            count = chance.choice((2, 3)) if chance.random() < rules.several_share else 1
            most = sale.amount_fen // count
            parts = [chance.randint(1, most) for _ in range(count)]
        status = _REFUND_REJECTED if chance.random() < rules.rejected_share else REFUND_DONE
        for part, fen in enumerate(parts, start=1):
            days = min(rules.within_days, rules.median_days * -math.log2(1.0 - chance.random()))
            yield max(1, self._story_s(days * DAY_S)), f"R{number:016X}{part}", fen, status

    def _refund(self, paid: Bill, refund_id: str, amount_fen: int, status: int, time_s: int) -> None:
        chance = self._corp.random("refunder", refund_id)
        refunder = paid.staff_id
        if refunder and (chance.random() < 0.1 or not self._is_here(refunder)):
            refunder = self._colleague(refunder, chance.random())
        self._corp.of(BillBook).add(
            [
                Bill(
                    corp_id=paid.corp_id,
                    bill_type=REFUND,
                    transaction_id=f"50{paid.transaction_id[2:]}{refund_id[-1]}",
                    time_s=time_s,
                    visible_ms=time_s * 1000 + chance.randint(0, self._lag_ms),
                    out_trade_no=paid.out_trade_no,
                    amount_fen=amount_fen,
                    payment_type=paid.payment_type,
                    customer_id=paid.customer_id,
                    staff_id=refunder,
                    out_refund_no=refund_id,
                    refund_status=status,
                    paid_fen=paid.amount_fen,
                    hidden=paid.hidden,
                )
            ]
        )

    def _refund_at(self, till: Till, order_id: str, refund_id: str, amount_fen: int, time_s: int) -> None:
        till.refunded(self._corp, out_trade_no=order_id, amount_fen=amount_fen, time_s=time_s, out_refund_no=refund_id)

    def _serving(self, customer_id: str, pick: float) -> str:
        """One of the staff who have this customer and still work here; else anybody."""
        if customer_id:
            here = [s for s, pair in self._corp.relations.followers_of(customer_id) if pair.friend and self._is_here(s)]
            if here:
                return here[int(pick * len(here))]
        return self._anybody(pick)

    def _is_here(self, staff_id: str) -> bool:
        member = self._corp.people.staff.get(staff_id)
        return member is not None and member.status == ACTIVE
