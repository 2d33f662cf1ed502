"""What customers paid to a corp's WeChat Pay merchants, and what went back: the state behind queries and notices. Pure.

All amounts in fen, all times in epoch seconds of business time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator.pay.refunds import RefundRules, RefundStatus
from simulator.pay.signing import digits
from simulator.pay.times import day_text, rfc3339
from simulator.world.corp import CorpWorld


class PayRules(RefundRules, frozen=True, forbid_unknown_fields=True):
    """Limits and chances of WeChat Pay (fact sheet 3.15); section ``pay`` of the rules. Seconds, shares, counts."""

    stocks_per_minute: int = 60
    """Batches a merchant may create."""
    stocks_per_minute_overall: int = 1_000
    sends_per_second: int = 500
    stock_window_s: int = 90 * 86_400
    stock_ahead_s: int = 365 * 86_400
    coupons_per_user: int = 60
    file_s: int = 30
    """Life of a download address."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A coupon that was used with a payment."""

    coupon_id: str
    name: str
    stock_id: str
    amount_fen: int
    """What it took off."""
    no_cash: bool
    """True: the merchant bears it; False: it was funded beforehand."""

    def shown(self) -> dict[str, Any]:
        """An entry of ``promotion_detail``."""
        return {
            "coupon_id": self.coupon_id,
            "name": self.name,
            "scope": "GLOBAL",
            "type": "NOCASH" if self.no_cash else "CASH",
            "amount": self.amount_fen,
            "stock_id": self.stock_id,
            "wechatpay_contribute": 0,
            "merchant_contribute": self.amount_fen,
            "other_contribute": 0,
            "currency": "CNY",
        }


@dataclass(slots=True)
class Refund:
    """Money that goes back."""

    refund_id: str
    out_refund_no: str
    amount_fen: int
    payer_fen: int
    """Of it, what the payer gets in money; the rest was a coupon's."""
    created_s: int
    status: RefundStatus = "PROCESSING"
    ended_s: int = 0
    reason: str = ""
    notify_url: str = ""
    funds_account: str = ""


@dataclass(slots=True)
class Transaction:
    """A payment that succeeded."""

    mchid: str
    appid: str
    out_trade_no: str
    transaction_id: str
    openid: str
    amount_fen: int
    time_s: int
    trade_type: str
    bank_type: str
    attach: str = ""
    goods_tag: str = ""
    """The merchant's mark of the order: coupons and gifts may ask for one."""
    customer_id: str = ""
    """The payer's external_userid, which WeChat Pay tells nobody."""
    promotions: list[Promotion] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)

    @property
    def payer_fen(self) -> int:
        """What was paid in money."""
        return self.amount_fen - sum(promotion.amount_fen for promotion in self.promotions)

    @property
    def gone_fen(self) -> int:
        """Refunded, or being refunded."""
        return sum(refund.amount_fen for refund in self.refunds if refund.status != "CLOSED")

    def shown(self) -> dict[str, Any]:
        """As queries and notices tell it."""
        refunded = self.gone_fen > 0
        told: dict[str, Any] = {
            "mchid": self.mchid,
            "appid": self.appid,
            "out_trade_no": self.out_trade_no,
            "transaction_id": self.transaction_id,
            "trade_type": self.trade_type,
            "trade_state": "REFUND" if refunded else "SUCCESS",
            "trade_state_desc": "转入退款" if refunded else "支付成功",
            "bank_type": self.bank_type,
            "attach": self.attach,
            "success_time": rfc3339(self.time_s),
            "payer": {"openid": self.openid},
            "amount": {
                "total": self.amount_fen,
                "payer_total": self.payer_fen,
                "currency": "CNY",
                "payer_currency": "CNY",
            },
        }
        if self.promotions:
            told["promotion_detail"] = [promotion.shown() for promotion in self.promotions]
        return told

    def refund_shown(self, refund: Refund) -> dict[str, Any]:
        """A refund as its query tells it."""
        told: dict[str, Any] = {
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "transaction_id": self.transaction_id,
            "out_trade_no": self.out_trade_no,
            "channel": "ORIGINAL",
            "user_received_account": RECEIVED_BY,
            "create_time": rfc3339(refund.created_s),
            "status": refund.status,
            "funds_account": refund.funds_account or "UNSETTLED",
            "amount": {
                "total": self.amount_fen,
                "refund": refund.amount_fen,
                "payer_total": self.payer_fen,
                "payer_refund": refund.payer_fen,
                "settlement_refund": refund.amount_fen,
                "settlement_total": self.amount_fen,
                "discount_refund": refund.amount_fen - refund.payer_fen,
                "currency": "CNY",
            },
        }
        if refund.status == "SUCCESS":
            told["success_time"] = rfc3339(refund.ended_s)
        return told

    def refund_notice(self, refund: Refund) -> dict[str, Any]:
        """A refund as its notice tells it."""
        told: dict[str, Any] = {
            "mchid": self.mchid,
            "transaction_id": self.transaction_id,
            "out_trade_no": self.out_trade_no,
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "refund_status": refund.status,
            "user_received_account": RECEIVED_BY,
            "amount": {
                "total": self.amount_fen,
                "refund": refund.amount_fen,
                "payer_total": self.payer_fen,
                "payer_refund": refund.payer_fen,
            },
        }
        if refund.status == "SUCCESS":
            told["success_time"] = rfc3339(refund.ended_s)
        return told


RECEIVED_BY = "支付用户零钱"
"""Where refunds go: the payer's balance."""
_BANKS = ("OTHERS", "CMB_DEBIT", "ICBC_DEBIT", "CCB_DEBIT", "CMB_CREDIT")


class Ledger:
    """Every payment to the merchants of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._by_order: dict[tuple[str, str], Transaction] = {}
        self._by_id: dict[tuple[str, str], Transaction] = {}
        self._refunds: dict[tuple[str, str], tuple[Transaction, Refund]] = {}
        self._serial = 0

    def add(
        self,
        *,
        mchid: str,
        appid: str,
        openid: str,
        customer_id: str,
        out_trade_no: str,
        amount_fen: int,
        time_s: int,
        trade_type: str,
        attach: str,
        goods_tag: str = "",
    ) -> Transaction:
        """A payment of at least one fen. Raises ValueError for an order number that was paid already."""
        if amount_fen < 1:
            raise ValueError("a payment is at least one fen")
        if (mchid, out_trade_no) in self._by_order:
            raise ValueError(f"order {out_trade_no} of {mchid} is paid already")
        transaction = Transaction(
            mchid=mchid,
            appid=appid,
            out_trade_no=out_trade_no,
            transaction_id=self._id("42000", mchid, time_s),
            openid=openid,
            amount_fen=amount_fen,
            time_s=time_s,
            trade_type=trade_type,
            bank_type=self._corp.random("bank", mchid, out_trade_no).choice(_BANKS),
            attach=attach,
            goods_tag=goods_tag,
            customer_id=customer_id,
        )
        self._by_order[mchid, out_trade_no] = transaction
        self._by_id[mchid, transaction.transaction_id] = transaction
        return transaction

    def order(self, mchid: str, out_trade_no: str) -> Transaction | None:
        """By the merchant's number."""
        return self._by_order.get((mchid, out_trade_no))

    def transaction(self, mchid: str, transaction_id: str) -> Transaction | None:
        """By WeChat Pay's number."""
        return self._by_id.get((mchid, transaction_id))

    def refund(self, mchid: str, out_refund_no: str) -> tuple[Transaction, Refund] | None:
        """By the merchant's number."""
        return self._refunds.get((mchid, out_refund_no))

    def add_refund(
        self,
        transaction: Transaction,
        *,
        out_refund_no: str,
        amount_fen: int,
        time_s: int,
        reason: str = "",
        notify_url: str = "",
        funds_account: str = "",
    ) -> Refund:
        """A refund that has been accepted. Raises ValueError for more than is left, or a number in use."""
        left = transaction.amount_fen - transaction.gone_fen
        if not 1 <= amount_fen <= left:
            raise ValueError(f"{amount_fen} fen cannot be refunded, {left} are left")
        if (transaction.mchid, out_refund_no) in self._refunds:
            raise ValueError(f"refund {out_refund_no} of {transaction.mchid} exists already")
        back = sum(refund.payer_fen for refund in transaction.refunds if refund.status != "CLOSED")
        # A coupon's part goes back in proportion, over all refunds together, so that roundings do not pile up.
        due = (transaction.gone_fen + amount_fen) * transaction.payer_fen // transaction.amount_fen
        payer_fen = min(due - back, amount_fen)
        refund = Refund(
            refund_id=self._id("50300", transaction.mchid, time_s),
            out_refund_no=out_refund_no,
            amount_fen=amount_fen,
            payer_fen=payer_fen,
            created_s=time_s,
            reason=reason,
            notify_url=notify_url,
            funds_account=funds_account,
        )
        transaction.refunds.append(refund)
        self._refunds[transaction.mchid, out_refund_no] = (transaction, refund)
        return refund

    def __iter__(self) -> Iterator[Transaction]:
        """In the order they were told."""
        return iter(self._by_order.values())

    def __len__(self) -> int:
        return len(self._by_order)

    def _id(self, prefix: str, mchid: str, time_s: int) -> str:
        self._serial += 1
        return f"{prefix}{digits(self._corp.corp_id, mchid, length=5)}{day_text(time_s)}{self._serial:010d}"
