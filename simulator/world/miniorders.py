"""Orders of mini programs that collect through WeCom (miniapppay, fact sheet 3.10, 2.6): ordered, paid, refunded, told.

An app orders for somebody's openid; that person pays within a seeded time, or never. Each payment and refund stands in
the bill list (payment_type 15) and is pushed to the app that ordered, as XML whose ``resource`` is encrypted with the
app's own callback AESKey; an app whose callback URL asks for JSON envelopes (fact sheet 1.3) is told the same as JSON,
which the sheet leaves open. Amounts in fen, times in epoch seconds.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from simulator.pay import signing
from simulator.pay.files import Files, sha1, table, yuan
from simulator.pay.refunds import RefundRules, RefundStatus, refund_end
from simulator.pay.times import day_text, rfc3339
from simulator.world.bills import COLLECTION, MINI_PROGRAM, REFUND, Bill, BillBook
from simulator.world.corp import CorpWorld
from simulator.world.funds import ReceivingMerchant, ReceivingMerchants
from simulator.world.payers import Payers

State = Literal["NOTPAY", "SUCCESS", "REFUND", "CLOSED"]

EVENT = "miniapppay"
"""What an app lists among its events to take these pushes; apps without a list take everything."""
_STATES = {"NOTPAY": "订单未支付", "SUCCESS": "支付成功", "REFUND": "转入退款", "CLOSED": "已关闭"}
_SUMMARIES = {"SUCCESS": "退款成功", "CLOSED": "退款关闭", "ABNORMAL": "退款异常"}
_RECEIVED_BY = "支付用户零钱"


class MiniPayRules(RefundRules, frozen=True, forbid_unknown_fields=True):
    """miniapppay (fact sheet 3.10), section ``miniapppay`` of the rules. Fen, seconds, shares."""

    open: bool = True
    """Only grey-listed corps can use it; others get 48002."""
    appids: tuple[str, ...] = ("wx0000000000000001",)
    """Mini programs bound to 对外收款."""
    order_s: int = 7_200
    """Life of an order without ``time_expire``, and of every prepay_id."""
    paid_share: float = 0.8
    """Orders that are paid."""
    paid_least_s: int = 5
    paid_most_s: int = 300
    amount_most_fen: int = 5_000_000
    bill_lag_ms: int = 3_000
    """A bill can be read up to so long after."""
    bill_days: int = 92
    """Files of bills can be asked for so many days back."""
    bill_ready_s: int = 10 * 3_600
    """After a day's end."""
    file_s: int = 30
    download_base: str = "https://api.mch.weixin.qq.com"
    """What download addresses begin with."""
    image_bytes: int = 2 << 20
    image_s: int = 30 * 86_400
    applications_per_user: int = 200
    applications_per_corp: int = 2_000
    review_least_s: int = 3_600
    review_most_s: int = 3 * 86_400
    rejected_share: float = 0.15
    """Applications for a merchant number that are refused."""


@dataclass(slots=True)
class MiniRefund:
    """Money that goes back."""

    refund_id: str
    out_refund_no: str
    amount_fen: int
    reason: str
    created_s: int
    state: RefundStatus = "PROCESSING"
    ended_s: int = 0


@dataclass(slots=True)
class MiniOrder:
    """One order."""

    mch_id: str
    appid: str
    agent_id: str
    aes_key: bytes = field(repr=False)
    """Of the callbacks of the app that ordered."""
    as_json: bool
    """That app takes JSON instead of XML."""
    out_trade_no: str
    description: str
    amount_fen: int
    openid: str
    attach: str
    asked: tuple[object, ...]
    """What makes a repeated request the same one."""
    created_s: int
    expires_s: int
    prepay_id: str = ""
    state: State = "NOTPAY"
    transaction_id: str = ""
    paid_s: int = 0
    customer_id: str = ""
    refunds: list[MiniRefund] = field(default_factory=list)
    refund_asked_s: int = 0
    """When a refund was last asked for; 0: never."""

    @property
    def gone_fen(self) -> int:
        """Refunded, or being refunded."""
        return sum(refund.amount_fen for refund in self.refunds if refund.state != "CLOSED")

    def state_at(self, now_s: int) -> State:
        """An order that was not paid in time is closed."""
        return "CLOSED" if self.state == "NOTPAY" and now_s > self.expires_s else self.state

    def shown(self, now_s: int) -> dict[str, Any]:
        """As its query and its notice tell it."""
        state = self.state_at(now_s)
        told: dict[str, Any] = {
            "appid": self.appid,
            "mchid": self.mch_id,
            "out_trade_no": self.out_trade_no,
            "trade_state": state,
            "trade_state_desc": _STATES[state],
            "attach": self.attach,
            "payer": {"openid": self.openid},
            "amount": {"total": self.amount_fen, "currency": "CNY"},
        }
        if self.paid_s:
            told |= {
                "trade_type": "JSAPI",
                "success_time": rfc3339(self.paid_s),
                "amount": {
                    "total": self.amount_fen,
                    "payer_total": self.amount_fen,
                    "currency": "CNY",
                    "payer_currency": "CNY",
                },
            }
        return told

    def refund_shown(self, refund: MiniRefund) -> dict[str, Any]:
        """As its query tells it."""
        told: dict[str, Any] = {
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "transaction_id": self.transaction_id,
            "out_trade_no": self.out_trade_no,
            "channel": "ORIGINAL",
            "user_received_account": _RECEIVED_BY,
            "create_time": rfc3339(refund.created_s),
            "status": refund.state,
            "amount": {
                "refund": refund.amount_fen,
                "payer_refund": refund.amount_fen,
                "discount_refund": 0,
                "currency": "CNY",
            },
        }
        if refund.state == "SUCCESS":
            told["success_time"] = rfc3339(refund.ended_s)
        return told

    def refund_notice(self, refund: MiniRefund) -> dict[str, Any]:
        """As its notice tells it."""
        told: dict[str, Any] = {
            "mchid": self.mch_id,
            "out_trade_no": self.out_trade_no,
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "refund_status": refund.state,
            "user_received_account": _RECEIVED_BY,
            "amount": {
                "total": self.amount_fen,
                "refund": refund.amount_fen,
                "payer_total": self.amount_fen,
                "payer_refund": refund.amount_fen,
            },
        }
        if refund.state == "SUCCESS":
            told["success_time"] = rfc3339(refund.ended_s)
        return told


@dataclass(slots=True)
class Application:
    """A request for a new merchant number."""

    out_request_no: str
    agent_id: str
    userid: str
    name: str
    created_s: int
    state: Literal["AUDITING", "REJECTED", "FINISH"] = "AUDITING"
    mch_id: str = ""
    reason: str = ""

    def shown(self) -> dict[str, Any]:
        """What its query tells. apply_state: 1 under way, 2 bound, 4 failed; real_sign_state: 0 not yet, 2 signed."""
        states = {"AUDITING": (1, 0, "审核中"), "REJECTED": (4, 0, "已驳回"), "FINISH": (2, 2, "完成")}
        apply_state, signed, told = states[self.state]
        status: dict[str, Any] = {
            "applyment_state": self.state,
            "applyment_state_desc": told,
            "sign_state": "SIGNED" if signed else "NOT_SIGNABLE",
            "audit_detail": [],
        }
        if self.mch_id:
            status["sub_mchid"] = self.mch_id
        if self.reason:
            status["audit_detail"] = [{"param_name": "business_license_info", "reject_reason": self.reason}]
        return {
            "status": status,
            "apply_state": apply_state,
            "real_sign_state": signed,
            "reject_reason": self.reason,
        }


@functools.cache
def order_key() -> rsa.RSAPrivateKey:
    """What payment signatures are made with: one key a process, known to the client of the payer alone."""
    return signing.new_key()


class MiniOrders:
    """The mini-program orders of one corp, and its requests for merchant numbers."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.rules = corp.rules_of("miniapppay", MiniPayRules)
        self._orders: dict[tuple[str, str], MiniOrder] = {}
        self._by_prepay: dict[str, MiniOrder] = {}
        self._refunds: dict[tuple[str, str], tuple[MiniOrder, MiniRefund]] = {}
        self._applications: dict[str, Application] = {}
        self._images: dict[str, tuple[str, int]] = {}
        self._refund_second = (0, 0)
        self._serial = 0

    def order(self, mch_id: str, out_trade_no: str) -> MiniOrder | None:
        """None when there is no such order."""
        return self._orders.get((mch_id, out_trade_no))

    def by_prepay(self, prepay_id: str) -> MiniOrder | None:
        """None when there is no such order."""
        return self._by_prepay.get(prepay_id)

    def add(self, order: MiniOrder) -> MiniOrder:
        """A new order; its payer will pay, or not."""
        rules, corp = self.rules, self._corp
        self._serial += 1
        order.prepay_id = f"wx{day_text(order.created_s)}{signing.token(corp.seed, 'prepay', self._serial, length=26)}"
        self._orders[order.mch_id, order.out_trade_no] = order
        self._by_prepay[order.prepay_id] = order
        chance = corp.random("mini-order", order.mch_id, order.out_trade_no)
        if chance.random() < rules.paid_share:
            wait_s = chance.randint(rules.paid_least_s, max(rules.paid_least_s, rules.paid_most_s))
            corp.schedule.at(order.created_s + wait_s, partial(self._pay_in_time, order))
        return order

    def close(self, order: MiniOrder) -> None:
        """Nobody can pay it any more."""
        order.state = "CLOSED"

    def pay(self, order: MiniOrder, time_s: int) -> bool:
        """The payer pays; False when the order cannot be paid any more."""
        if order.state_at(time_s) != "NOTPAY":
            return False
        order.state, order.paid_s = "SUCCESS", time_s
        order.transaction_id = self._number("42000", time_s)
        order.customer_id = self._corp.of(Payers).customer(order.openid, order.appid)
        self._bill(order, order.transaction_id, time_s, order.amount_fen)
        self._push(
            order,
            time_s,
            notify_type="NORMALPAY",
            event_type="TRANSACTION.SUCCESS",
            associated="transaction",
            summary="支付成功",
            content=order.shown(time_s),
        )
        return True

    def _pay_in_time(self, order: MiniOrder, time_s: int) -> None:
        self.pay(order, time_s)

    def refund(self, mch_id: str, out_refund_no: str) -> tuple[MiniOrder, MiniRefund] | None:
        """None when there is no such refund."""
        return self._refunds.get((mch_id, out_refund_no))

    def add_refund(
        self, order: MiniOrder, *, out_refund_no: str, amount_fen: int, reason: str, now_s: int
    ) -> MiniRefund:
        """A refund that was accepted; how it ends, the seed knows."""
        refund = MiniRefund(self._number("50300", now_s), out_refund_no, amount_fen, reason, now_s)
        order.refunds.append(refund)
        order.state = "REFUND"
        self._refunds[order.mch_id, out_refund_no] = (order, refund)
        chance = self._corp.random("mini-refund", order.mch_id, out_refund_no)
        takes_s, state = refund_end(self.rules, chance)
        self._corp.schedule.at(now_s + takes_s, partial(self._end_refund, order, refund, state))
        return refund

    def count_refund(self, clock_s: float) -> bool:
        """Counts a request for a refund; False when it is one too many of its second."""
        second, used = self._refund_second
        used = used + 1 if second == int(clock_s) else 1
        self._refund_second = (int(clock_s), used)
        return used <= self.rules.refunds_per_second

    def bill_file(
        self, mch_id: str, day_s: int, kinds: Sequence[int], now_s: int, *, packed: bool
    ) -> tuple[str, str, str]:
        """A day's bill: the token of its address, its Authorization header, and the hash of what is in it."""
        bills = [
            bill
            for bill in self._corp.of(BillBook).between(day_s, day_s + 86_400)
            if bill.bill_type in kinds and bill.payment_type == MINI_PROGRAM and bill.mch_id == mch_id
        ]
        head = (
            "交易时间",
            "商户号",
            "微信订单号",
            "商户订单号",
            "交易状态",
            "应结订单金额",
            "商户退款单号",
            "退款金额",
        )
        rows = [
            (
                rfc3339(bill.time_s),
                mch_id,
                bill.transaction_id,
                bill.out_trade_no,
                "SUCCESS" if bill.bill_type == COLLECTION else "REFUND",
                yuan(bill.amount_fen if bill.bill_type == COLLECTION else 0),
                bill.out_refund_no,
                yuan(bill.amount_fen if bill.bill_type == REFUND else 0),
            )
            for bill in bills
        ]
        paid = sum(bill.amount_fen for bill in bills if bill.bill_type == COLLECTION)
        back = sum(bill.amount_fen for bill in bills if bill.bill_type == REFUND)
        total = (("总交易单数", len(rows)), ("应结订单总金额", yuan(paid)), ("退款总金额", yuan(back)))
        content = table(head, rows, total)
        stored = gzip.compress(content, mtime=0) if packed else content
        token, auth = self._corp.of(Files).put(mch_id, stored, expires_s=now_s + self.rules.file_s, with_auth=True)
        return token, f"Authorization: {auth}", sha1(content)

    def add_image(self, agent_id: str, content: bytes, now_s: int) -> str:
        """An image for an application, good for 30 days, for the app that uploaded it."""
        name = hashlib.blake2b(
            content, digest_size=16, key=f"{self._corp.seed}|{agent_id}|{len(self._images)}".encode()[:64]
        ).hexdigest()
        self._images[name] = (agent_id, now_s + self.rules.image_s)
        return name

    def has_image(self, agent_id: str, name: str, now_s: int) -> bool:
        """Whether the app may use this image now."""
        owner, until_s = self._images.get(name, ("", 0))
        return owner == agent_id and now_s <= until_s

    def application(self, out_request_no: str, agent_id: str) -> Application | None:
        """Only the app that sent it sees it."""
        found = self._applications.get(out_request_no)
        return found if found is not None and found.agent_id == agent_id else None

    def has_application(self, out_request_no: str) -> bool:
        """Whether anybody has used this number."""
        return out_request_no in self._applications

    def may_apply(self, userid: str) -> bool:
        """Whether this staff member, and the corp, may have another merchant number."""
        own = sum(application.userid == userid for application in self._applications.values())
        rules = self.rules
        return own < rules.applications_per_user and len(self._applications) < rules.applications_per_corp

    def apply(self, application: Application) -> None:
        """A request for a merchant number; it is reviewed, and a number is bound or refused with a reason."""
        rules = self.rules
        self._applications[application.out_request_no] = application
        chance = self._corp.random("application", application.out_request_no, application.created_s)
        takes_s = chance.randint(rules.review_least_s, max(rules.review_least_s, rules.review_most_s))
        rejected = chance.random() < rules.rejected_share
        self._corp.schedule.at(application.created_s + takes_s, partial(self._review, application, rejected))

    def _review(self, application: Application, rejected: bool, _due_s: int) -> None:
        if rejected:
            application.state, application.reason = "REJECTED", "营业执照照片不清晰"
            return
        number = signing.digits(self._corp.seed, self._corp.corp_id, application.out_request_no, length=8)
        application.state, application.mch_id = "FINISH", f"16{number}"
        merchants = self._corp.of(ReceivingMerchants).by_id
        merchants[application.mch_id] = ReceivingMerchant(application.mch_id, application.name)

    def _end_refund(self, order: MiniOrder, refund: MiniRefund, state: RefundStatus, time_s: int) -> None:
        refund.state, refund.ended_s = state, time_s
        if state == "CLOSED" and not order.gone_fen:
            order.state = "SUCCESS"
        if state == "SUCCESS":
            self._bill(order, refund.refund_id, time_s, refund.amount_fen, refund)
        self._push(
            order,
            time_s,
            notify_type="REFUND",
            event_type=f"REFUND.{state}",
            associated="refund",
            summary=_SUMMARIES[state],
            content=order.refund_notice(refund),
        )

    def _bill(
        self, order: MiniOrder, number: str, time_s: int, amount_fen: int, refund: MiniRefund | None = None
    ) -> None:
        lag_ms = self._corp.random("bill-lag", number).randint(0, self.rules.bill_lag_ms)
        bill = Bill(
            corp_id=self._corp.corp_id,
            bill_type=REFUND if refund is not None else COLLECTION,
            transaction_id=number,
            time_s=time_s,
            visible_ms=time_s * 1000 + lag_ms,
            out_trade_no=order.out_trade_no,
            amount_fen=amount_fen,
            payment_type=MINI_PROGRAM,
            customer_id=order.customer_id,
            out_refund_no=refund.out_refund_no if refund is not None else "",
            paid_fen=order.amount_fen if refund is not None else 0,
            mch_id=order.mch_id,
            appid=order.appid,
            description=order.description,
        )
        self._corp.of(BillBook).add([bill])

    def _push(
        self,
        order: MiniOrder,
        time_s: int,
        *,
        notify_type: str,
        event_type: str,
        associated: str,
        summary: str,
        content: dict[str, Any],
    ) -> None:
        if not order.aes_key:  # an app that is not called back
            return
        self._serial += 1
        name = hashlib.blake2b(
            f"{self._corp.seed}|{self._corp.corp_id}|mini-notice|{self._serial}".encode(), digest_size=16
        ).hexdigest()
        sealed = signing.resource(
            order.aes_key,
            msgspec.json.encode(content),
            nonce=signing.token(self._corp.seed, "mini", name, length=12),
            associated=associated,
        )
        head = {
            "notify_type": notify_type,
            "id": f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}",
            "create_time": rfc3339(time_s),
            "event_type": event_type,
            "resource_type": "encrypt-resource",
        }
        if order.as_json:
            notice = msgspec.json.encode({**head, "resource": sealed, "summary": summary})
        else:
            told = "".join(_element(key, value) for key, value in head.items())
            inner = "".join(_element(key, value) for key, value in sealed.items())
            notice = f"<xml>{told}<resource>{inner}</resource>{_element('summary', summary)}</xml>".encode()
        self._corp.push(EVENT, notice, only_agent=order.agent_id)

    def _number(self, prefix: str, time_s: int) -> str:
        self._serial += 1
        return f"{prefix}{signing.digits(self._corp.corp_id, 'mini', length=5)}{day_text(time_s)}{self._serial:010d}"


def _element(name: str, value: str) -> str:
    return f"<{name}><![CDATA[{value}]]></{name}>"
