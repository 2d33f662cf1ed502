"""Behind the bill list (fact sheet 3.10): merchants that collect, collection projects of apps, and the flow of funds.

The flow follows from the bills: what came in and went back, fees at the end of each Beijing day, and withdrawals by a
seeded daily rule. Amounts in fen, times in epoch seconds.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simulator.pay.times import day_text
from simulator.world.bills import COLLECTION, Bill, BillBook, ExternalPayRules
from simulator.world.corp import CorpWorld
from simulator.world.days import DAY_S, day_start

APPLYING, BOUND, WITHDRAWN = 1, 2, 3
"""bind_status of a merchant."""
REFUND_FLOW, FEE_FLOW, COLLECTION_FLOW, WITHDRAWAL_FLOW = 1, 2, 3, 4
"""transaction_type of a fund flow."""
_IN, _OUT = 1, 2


@dataclass(slots=True)
class ReceivingMerchant:
    """A merchant number that is bound to the corp's 对外收款."""

    mch_id: str
    name: str
    bind_status: int = BOUND
    users: list[str] = field(default_factory=list)
    parties: list[int] = field(default_factory=lambda: [1])
    tags: list[int] = field(default_factory=list)
    """Who may collect with it."""

    def shown(self) -> dict[str, Any]:
        """Its scope is told only while it is bound."""
        told: dict[str, Any] = {
            "bind_status": self.bind_status,
            "mch_id": self.mch_id,
            "merchant_name": self.name,
        }
        if self.bind_status == BOUND:
            told["allow_use_scope"] = {"user": self.users, "partyid": self.parties, "tagid": self.tags}
        return told


class ReceivingMerchants:
    """The merchant numbers of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        rules = corp.rules_of("externalpay", ExternalPayRules)
        self.by_id = {rules.mch_id: ReceivingMerchant(rules.mch_id, rules.merchant_name)}

    def bound(self, mch_id: str) -> bool:
        """Whether orders can be collected with it."""
        merchant = self.by_id.get(mch_id)
        return merchant is not None and merchant.bind_status == BOUND


@dataclass(slots=True)
class Project:
    """A collection that a staff member started in an app (createExternalPayment)."""

    payment_id: str
    agent_id: str
    staff_id: str
    payment_type: int
    amount_fen: int
    """0: the payer fills it in."""
    description: str
    orders: list[str] = field(default_factory=list)


class Projects:
    """The collection projects of one corp. No call starts one: staff do, in the client."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._by_id: dict[str, Project] = {}

    def start(
        self, *, agent_id: str, staff_id: str, amount_fen: int = 0, payment_type: int = 0, description: str = ""
    ) -> str:
        """A staff member starts a collection; returns its payment_id. Raises ValueError for an impossible amount."""
        rules = self._corp.rules_of("externalpay", ExternalPayRules)
        if amount_fen and not rules.collection_least_fen <= amount_fen <= rules.collection_most_fen:
            raise ValueError(f"a collection of {amount_fen} fen")
        serial = len(self._by_id)
        name = hashlib.blake2b(
            f"{self._corp.seed}|{self._corp.corp_id}|payment|{serial}".encode(), digest_size=16
        ).hexdigest()
        payment_id = f"pay{name}"
        self._by_id[payment_id] = Project(payment_id, agent_id, staff_id, payment_type, amount_fen, description)
        return payment_id

    def collect(self, payment_id: str, *, customer_id: str, time_s: int, amount_fen: int = 0) -> Bill:
        """A customer pays; the bill stands in the list at once. Raises KeyError, ValueError."""
        project = self._by_id[payment_id]
        amount_fen = project.amount_fen or amount_fen
        if amount_fen < 1:
            raise ValueError("a payment is at least one fen")
        number = f"{payment_id[3:15]}{len(project.orders):04d}"
        bill = Bill(
            corp_id=self._corp.corp_id,
            bill_type=COLLECTION,
            transaction_id=f"42{day_text(time_s)}{int(number, 16) % 10**18:018d}",
            time_s=time_s,
            visible_ms=time_s * 1000,
            out_trade_no=number,
            amount_fen=amount_fen,
            payment_type=project.payment_type,
            customer_id=customer_id,
            staff_id=project.staff_id,
            description=project.description,
        )
        self._corp.of(BillBook).add([bill])
        project.orders.append(number)
        return bill

    def get(self, payment_id: str) -> Project | None:
        """None when there is no such project."""
        return self._by_id.get(payment_id)


class _Move(NamedTuple):
    """A movement before the balance is known. Begins with what orders the day."""

    time_s: int
    request_no: str
    kind: int
    mch_id: str
    amount_fen: int
    """Of a withdrawal: how many of 10,000 parts of the balance."""
    out_trade_no: str = ""
    operator: str = ""
    remark: str = ""


class Flow(NamedTuple):
    """One movement of funds."""

    time_s: int
    request_no: str
    kind: int
    mch_id: str
    amount_fen: int
    balance_fen: int
    """Of the merchant number, after it."""
    readable_s: int
    out_trade_no: str = ""
    operator: str = ""
    remark: str = ""

    @property
    def position(self) -> tuple[int, str]:
        return (self.time_s, self.request_no)

    def shown(self) -> dict[str, Any]:
        """A row of the list."""
        return {
            "timestamp": self.time_s,
            "request_no": self.request_no,
            "transaction_type": self.kind,
            "fund_flow_type": _IN if self.kind == COLLECTION_FLOW else _OUT,
            "transaction_amount": self.amount_fen,
            "account_balance": self.balance_fen,
            "out_trade_no": self.out_trade_no,
            "mch_id": self.mch_id,
            "operator_userid": self.operator,
            "group_list": [],
            "remark": self.remark,
        }


class FundFlows:
    """The fund flows of one corp, day by day: a day that is complete is computed once and never changes."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._rules = corp.rules_of("externalpay", ExternalPayRules)
        self._rows: list[Flow] = []
        self._closed_s: int | None = None
        """The days before this one are complete; None: no bill has been seen."""
        self._balances: dict[str, int] = {}
        self._open: tuple[tuple[int, int, int], list[Flow]] | None = None

    def page(
        self, *, now_s: int, begin_s: int, end_s: int, mch_id: str, after: tuple[int, str] | None, limit: int
    ) -> tuple[list[Flow], tuple[int, str] | None]:
        """Rows with ``begin_s <= time <= end_s`` behind a position, and where to go on; None at the end."""
        begin_s = max(begin_s, self._rules.flows_from_s, now_s - self._rules.flows_kept_s)
        start = (begin_s, "") if after is None else after
        page: list[Flow] = []
        for row in self._from(now_s, start):
            if row.time_s > min(end_s, now_s):
                break
            if row.readable_s > now_s or mch_id not in ("", row.mch_id) or row.position == after:
                continue
            if len(page) == limit:
                return page, page[-1].position
            page.append(row)
        return page, None

    def _from(self, now_s: int, start: tuple[int, str]) -> Iterator[Flow]:
        self._close(now_s)
        first = bisect.bisect_left(self._rows, start, key=lambda row: row.position)
        for index in range(first, len(self._rows)):
            yield self._rows[index]
        for row in self._open_rows(now_s):
            if row.position >= start:
                yield row

    def _close(self, now_s: int) -> None:
        bills = self._corp.of(BillBook).rows
        if self._closed_s is None:
            if not bills:
                return
            self._closed_s = day_start(bills[0].time_s)
        while self._closed_s + DAY_S + self._rules.flows_complete_s <= now_s:
            self._rows.extend(self._day(self._closed_s, self._balances))
            self._closed_s += DAY_S

    def _open_rows(self, now_s: int) -> list[Flow]:
        """Of the days that are not complete yet; computed anew when a bill has come."""
        if self._closed_s is None:
            return []
        today = day_start(now_s)
        state = (self._closed_s, today, len(self._corp.of(BillBook).rows))
        if self._open is None or self._open[0] != state:
            balances, rows = dict(self._balances), []
            for day in range(self._closed_s, today + 1, DAY_S):
                rows.extend(self._day(day, balances))
            self._open = (state, rows)
        return self._open[1]

    def _day(self, day: int, balances: dict[str, int]) -> list[Flow]:
        """The flows of one day in order; moves the balances."""
        moves = [self._of_bill(bill) for bill in self._corp.of(BillBook).between(day, day + DAY_S)]
        merchants = sorted({move.mch_id for move in moves} | set(balances))
        moves += [fee for mch_id in merchants if (fee := self._fee(day, mch_id, moves)) is not None]
        moves += [out for mch_id in merchants if (out := self._withdrawal(day, mch_id)) is not None]
        rows = []
        for move in sorted(moves):
            balance = balances.get(move.mch_id, self._rules.opening_balance_fen)
            amount = move.amount_fen
            if move.kind == WITHDRAWAL_FLOW:
                amount = max(0, balance) * amount // _PARTS
                if not amount:
                    continue
            balance += amount if move.kind == COLLECTION_FLOW else -amount
            balances[move.mch_id] = balance
            readable_s = self._readable(move.time_s, move.request_no)
            rows.append(Flow(*move[:4], amount, balance, readable_s, *move[5:]))
        return rows

    def _of_bill(self, bill: Bill) -> _Move:
        collection = bill.bill_type == COLLECTION
        return _Move(
            bill.time_s,
            ("C" if collection else "R") + bill.transaction_id,
            COLLECTION_FLOW if collection else REFUND_FLOW,
            bill.mch_id or self._rules.mch_id,
            bill.amount_fen,
            bill.out_trade_no,
            bill.staff_id,
        )

    def _fee(self, day: int, mch_id: str, moves: Sequence[_Move]) -> _Move | None:
        signs = {COLLECTION_FLOW: 1, REFUND_FLOW: -1}
        base = sum(move.amount_fen * signs[move.kind] for move in moves if move.mch_id == mch_id and move.kind in signs)
        amount = round(base * self._rules.fee_share)
        if amount <= 0:
            return None
        number = f"F{day_text(day)}{mch_id}"
        return _Move(day + DAY_S - 1, number, FEE_FLOW, mch_id, amount, remark="交易手续费")

    def _withdrawal(self, day: int, mch_id: str) -> _Move | None:
        chance = self._corp.random("withdrawal", mch_id, day)
        if chance.random() >= self._rules.withdrawal_chance:
            return None
        parts = round(chance.uniform(self._rules.withdrawal_least_share, self._rules.withdrawal_most_share) * _PARTS)
        time_s = day + chance.randint(9 * 3_600, 18 * 3_600)
        operator = next(iter(self._corp.people.staff), "")
        number = f"W{day_text(day)}{mch_id}"
        return _Move(time_s, number, WITHDRAWAL_FLOW, mch_id, parts, operator=operator, remark="提现")

    def _readable(self, time_s: int, number: str) -> int:
        """Some time between the movement and the hour at which its day is complete, by the seed."""
        complete_s = day_start(time_s) + DAY_S + self._rules.flows_complete_s
        # One hash instead of a generator: a day of a large corp has tens of thousands of rows.
        name = f"{self._corp.seed}|{self._corp.corp_id}|flow|{number}"
        share = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
        return time_s + int((complete_s - time_s) * share)


_PARTS = 10_000
