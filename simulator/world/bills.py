"""The bill list (对外收款): what a corp may read of its collections and refunds at an instant, page by page. Pure.

A row is visible some time after it happened (``visible_ms``), so that a reader without overlap misses it. A refund
shows twice, as the platform does it: as its own row, and on the collection row, whose trade_state goes from 1 to 3.
Paging is by position in order of time; rows outside the app's visible range and, when asked, of other payees are taken
out *after* the page was cut, so a page may be short or empty and is not the last one (fact sheet 3.10).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from simulator.world.corp import CorpWorld

COLLECTION = 0
REFUND = 1
REFUND_DONE = 2
"""refund_status of a refund that was paid out; any other never becomes a row and never counts."""

MINI_PROGRAM = 15
"""payment_type of an order that was paid in a mini program."""


class ExternalPayRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """对外收款 (fact sheet 3.10), section ``externalpay`` of the rules. Fen, seconds, shares."""

    agents: tuple[str, ...] = ()
    """Apps listed under 可调用接口的应用; empty: every app is. Others get 48002."""
    mch_id: str = "1900000001"
    """The merchant number that collections go to unless they name another."""
    merchant_name: str = "示例零售有限公司"
    miniprogram_appid: str = "wx0000000000000001"
    miniprogram_name: str = "门店商城"
    window_s: int = 31 * 86_400
    """Longest window of a question."""
    bills_a_page: int = 1_000
    flows_a_page: int = 200
    flows_by_default: int = 100
    flows_from_s: int = 1_669_824_000
    """2022-12-01 in Beijing: there are no fund flows from before."""
    flows_kept_s: int = 3 * 365 * 86_400
    flows_complete_s: int = 11 * 3_600
    """A day's flows are complete so long after its midnight; until then rows come in bit by bit."""
    opening_balance_fen: int = 10_000_000
    fee_share: float = 0.006
    """Of a day's collections less its refunds, taken at its end."""
    withdrawal_chance: float = 0.9
    """Days on which money is withdrawn."""
    withdrawal_least_share: float = 0.5
    withdrawal_most_share: float = 0.95
    """Of the balance, drawn evenly."""
    collection_least_fen: int = 1
    collection_most_fen: int = 5_000_000


Position = tuple[int, str]
"""Where a page ended: (time_s, transaction_id)."""


@dataclass(frozen=True, slots=True)
class Bill:
    """A collection or a refund. Amounts in fen, times in whole epoch seconds, ``visible_ms`` in epoch ms."""

    corp_id: str
    bill_type: int
    transaction_id: str
    time_s: int
    visible_ms: int
    out_trade_no: str
    amount_fen: int
    payment_type: int
    customer_id: str = ""
    """Payer; empty when the platform does not know."""
    staff_id: str = ""
    """Collecting (refund: refunding) staff member; empty for mini-program and live-room orders."""
    out_refund_no: str = ""
    refund_status: int = REFUND_DONE
    paid_fen: int = 0
    """On a refund: what had been paid; 0 when that payment is not known."""
    hidden: bool = False
    """Payee outside the app's visible range: takes a place on a page and is filtered out of it."""
    mch_id: str = ""
    """Merchant number; empty: the corp's first."""
    appid: str = ""
    """The mini program; empty: the corp's first."""
    description: str = ""
    """What was sold; empty: goods of the store."""


class BillBook:
    """All bills of one corp."""

    def __init__(self, corp: CorpWorld | None = None) -> None:
        self._rules = corp.rules_of("externalpay", ExternalPayRules) if corp is not None else ExternalPayRules()
        self._rows: list[Bill] = []
        self._positions: list[Position] = []
        self._refunds: dict[str, list[Bill]] = {}
        self._visible_ms: list[int] = []

    def add(self, bills: Iterable[Bill]) -> None:
        """Takes collections and refunds, in any order."""
        new = list(bills)
        rows = [b for b in new if b.bill_type == COLLECTION or b.refund_status == REFUND_DONE]
        if len(new) == 1:
            # One sale at a time, nearly always the newest: found its place without sorting the rest again.
            for bill in rows:
                at = bisect.bisect(self._positions, (bill.time_s, bill.transaction_id))
                self._rows.insert(at, bill)
                self._positions.insert(at, (bill.time_s, bill.transaction_id))
                if not bill.hidden:
                    bisect.insort(self._visible_ms, bill.visible_ms)
        else:
            self._rows = sorted([*self._rows, *rows], key=lambda b: (b.time_s, b.transaction_id))
            self._positions = [(b.time_s, b.transaction_id) for b in self._rows]
            self._visible_ms = sorted([*self._visible_ms, *(b.visible_ms for b in rows if not b.hidden)])
        for bill in sorted((b for b in new if b.bill_type == REFUND), key=lambda b: (b.time_s, b.out_refund_no)):
            bisect.insort(
                self._refunds.setdefault(bill.out_trade_no, []), bill, key=lambda b: (b.time_s, b.out_refund_no)
            )

    @property
    def everything(self) -> list[Bill]:
        """Collections, and refunds in every state."""
        collections = [bill for bill in self._rows if bill.bill_type == COLLECTION]
        return [*collections, *(refund for refunds in self._refunds.values() for refund in refunds)]

    @property
    def rows(self) -> list[Bill]:
        """Collections and paid-out refunds, in order of time; not to be changed."""
        return self._rows

    @property
    def total(self) -> int:
        """Rows that will be readable in the end."""
        return len(self._visible_ms)

    @property
    def last_visible_ms(self) -> int:
        """When the last row becomes readable; 0 when there is none."""
        return self._visible_ms[-1] if self._visible_ms else 0

    def between(self, begin_s: int, end_s: int) -> list[Bill]:
        """Collections and paid-out refunds with ``begin_s <= time < end_s``, readable or not, in order of time."""
        first = bisect.bisect_left(self._positions, (begin_s, ""))
        return self._rows[first : bisect.bisect_left(self._positions, (end_s, ""))]

    def visible(self, now_ms: int) -> int:
        """Rows readable at ``now_ms``."""
        return bisect.bisect_right(self._visible_ms, now_ms)

    def page(
        self, *, now_ms: int, begin_s: int, end_s: int, after: Position | None, limit: int, payee: str
    ) -> tuple[list[dict[str, Any]], Position | None]:
        """Rows with ``begin_s <= time <= end_s`` after a position, and where to go on; None at the end."""
        if after is not None:
            index = bisect.bisect_right(self._positions, after)
        else:
            index = bisect.bisect_left(self._positions, (begin_s, ""))
        page: list[Bill] = []
        more = False
        for bill in self._rows[index:]:
            if bill.time_s > end_s or bill.time_s * 1000 > now_ms:
                break
            if bill.visible_ms > now_ms:
                continue
            if len(page) == limit:
                more = True
                break
            page.append(bill)
        rows = [self._row(b, now_ms) for b in page if not b.hidden and (not payee or b.staff_id == payee)]
        return rows, (page[-1].time_s, page[-1].transaction_id) if more else None

    def _row(self, bill: Bill, now_ms: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            "transaction_id": bill.transaction_id,
            "bill_type": bill.bill_type,
            "pay_time": bill.time_s,
            "out_trade_no": bill.out_trade_no,
            "total_fee": bill.amount_fen if bill.bill_type == COLLECTION else bill.paid_fen,
            "payment_type": bill.payment_type,
            "mch_id": bill.mch_id or self._rules.mch_id,
            "remark": "",
        }
        if bill.customer_id:
            row["external_userid"] = bill.customer_id
        if bill.staff_id:
            row["payee_userid"] = bill.staff_id
        if bill.payment_type == MINI_PROGRAM:
            row["miniprogram_info"] = {
                "appid": bill.appid or self._rules.miniprogram_appid,
                "name": self._rules.miniprogram_name,
            }
        if bill.bill_type == REFUND:
            row["out_refund_no"] = bill.out_refund_no
            row["total_refund_fee"] = bill.amount_fen
            return row
        refunds = [r for r in self._refunds.get(bill.out_trade_no, ()) if r.visible_ms <= now_ms]
        done = [r for r in refunds if r.refund_status == REFUND_DONE]
        row["trade_state"] = 3 if done else 1
        row["commodity_list"] = [{"description": bill.description or "门店商品", "amount": 1}]
        row["contact_info"] = {"name": "收件人", "phone": "19900000000", "address": "示例路1号"}
        row["total_refund_fee"] = sum(r.amount_fen for r in done)
        row["refund_list"] = [
            {
                "out_refund_no": r.out_refund_no,
                "refund_userid": r.staff_id,
                "refund_comment": "",
                "refund_reqtime": r.time_s,
                "refund_status": r.refund_status,
                "refund_fee": r.amount_fen,
            }
            for r in refunds
        ]
        return row
