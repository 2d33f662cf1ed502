"""Merchant coupons (商家券, fact sheet 3.15): batches, codes, who took them, and their use at the till. Pure.

Nobody sends them by a server call: people take them on the merchant's pages, or a pay-gift activity gives them. The
merchant tells WeChat when one was used. Amounts in fen, times in epoch seconds of business time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from simulator.pay.errors import PayError
from simulator.pay.signing import digits
from simulator.pay.times import rfc3339
from simulator.world.corp import CorpWorld
from simulator.world.days import day_start


@dataclass(slots=True)
class VoucherStock:
    """A batch. ``asked`` is the request that made it, shown again in its detail."""

    stock_id: str
    creator: str
    belong: str
    out_request_no: str
    asked: dict[str, Any]
    begin_s: int
    end_s: int
    max_coupons: int
    per_user: int
    by_day: int
    """0: no limit a day."""
    code_mode: str
    created_s: int
    state: str = "RUNNING"
    codes: deque[str] = field(default_factory=deque)
    """Uploaded and not yet given out."""
    uploaded: set[str] = field(default_factory=set)
    sent: int = 0
    sent_to: Counter[str] = field(default_factory=Counter)
    sent_on: Counter[int] = field(default_factory=Counter)

    def shown(self, now_s: int) -> dict[str, Any]:
        """Its detail."""
        return {
            **{name: value for name, value in self.asked.items() if name != "out_request_no"},
            "stock_id": self.stock_id,
            "stock_state": "EXPIRED" if now_s > self.end_s else self.state,
            "belong_merchant": self.belong,
            "coupon_code_mode": self.code_mode,
            "send_count_information": {
                "total_send_num": self.sent,
                "total_send_amount": self.sent * _amount(self.asked),
                "today_send_num": self.sent_on[day_start(now_s)],
                "today_send_amount": self.sent_on[day_start(now_s)] * _amount(self.asked),
            },
        }


@dataclass(slots=True)
class Voucher:
    """One coupon of one person. ``request`` numbers are those of the calls that changed it."""

    code: str
    stock: VoucherStock
    openid: str
    appid: str
    received_s: int
    used_s: int = 0
    use_request: str = ""
    returned: dict[str, int] = field(default_factory=dict)
    deactivated_s: int = 0
    deactivate_request: str = ""

    def state(self, now_s: int) -> str:
        if self.deactivated_s:
            return "DEACTIVATED"
        if self.used_s:
            return "USED"
        return "EXPIRED" if now_s > self.stock.end_s else "SENDED"

    def shown(self, now_s: int) -> dict[str, Any]:
        """As queries tell it."""
        asked = self.stock.asked
        told: dict[str, Any] = {
            "belong_merchant": self.stock.belong,
            "stock_name": asked["stock_name"],
            "goods_name": asked["goods_name"],
            "stock_type": asked["stock_type"],
            "coupon_use_rule": asked["coupon_use_rule"],
            "coupon_code": self.code,
            "stock_id": self.stock.stock_id,
            "available_start_time": rfc3339(self.stock.begin_s),
            "expire_time": rfc3339(self.stock.end_s),
            "receive_time": rfc3339(self.received_s),
            "coupon_state": self.state(now_s),
            "transferable": False,
            "shareable": False,
        }
        if self.used_s:
            told |= {"use_request_no": self.use_request, "use_time": rfc3339(self.used_s)}
        if self.deactivated_s:
            told |= {
                "deactivate_request_no": self.deactivate_request,
                "deactivate_time": rfc3339(self.deactivated_s),
            }
        return told

    def sent_notice(self) -> dict[str, Any]:
        """What the merchant is told when somebody got it. Without ``notify_appid`` in the batch it names no openid."""
        told: dict[str, Any] = {
            "event_type": "EVENT_TYPE_BUSICOUPON_SEND",
            "coupon_code": self.code,
            "stock_id": self.stock.stock_id,
            "send_time": rfc3339(self.received_s),
            "send_channel": "BUSICOUPON_SEND_CHANNEL_MINIAPP",
            "send_merchant": self.stock.creator,
        }
        notify = self.stock.asked.get("notify_config")
        if isinstance(notify, dict) and notify.get("notify_appid") == self.appid:
            told["openid"] = self.openid
        return told


class VoucherBook:
    """Every batch and merchant coupon of the merchants of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.stocks: dict[str, VoucherStock] = {}
        self._by_request: dict[tuple[str, str], VoucherStock] = {}
        self._by_code: dict[str, Voucher] = {}
        self._by_person: dict[tuple[str, str], list[Voucher]] = {}
        self._uploads: dict[tuple[str, str], dict[str, Any]] = {}
        self._callbacks: dict[str, str] = {}

    def create(self, stock: VoucherStock) -> VoucherStock:
        """Keeps a new batch. Raises PayError for a request number that made another one."""
        known = self._by_request.get((stock.creator, stock.out_request_no))
        if known is not None:
            if known.asked != stock.asked:
                raise PayError("RESOURCE_ALREADY_EXISTS", "out_request_no was used for another batch")
            return known
        head = digits(self._corp.seed, self._corp.corp_id, "voucher", length=9)
        stock.stock_id = f"12{head}{len(self.stocks):05d}"
        self.stocks[stock.stock_id] = stock
        self._by_request[stock.creator, stock.out_request_no] = stock
        return stock

    def stock_of(self, stock_id: str, mchid: str) -> VoucherStock:
        """A batch that ``mchid`` made or owns. Raises PayError RESOURCE_NOT_EXISTS."""
        stock = self.stocks.get(stock_id)
        if stock is None or mchid not in (stock.creator, stock.belong):
            raise PayError("RESOURCE_NOT_EXISTS", "no such batch of this merchant")
        return stock

    def upload(self, stock: VoucherStock, request: str, codes: Iterable[str], now_s: int) -> dict[str, Any]:
        """Takes codes for later; says of each whether it was taken. The same request again gives the same answer."""
        key = (stock.stock_id, request)
        if key in self._uploads:
            return self._uploads[key]
        if stock.code_mode != "MERCHANT_UPLOAD":
            raise PayError("INVALID_REQUEST", "the codes of this batch are not uploaded")
        good, bad = [], []
        for code in codes:
            if code in stock.uploaded or code in self._by_code:
                bad.append({"coupon_code": code, "code": "RESOURCE_ALREADY_EXISTS", "message": "the code is known"})
            else:
                good.append(code)
                stock.uploaded.add(code)
                stock.codes.append(code)
        answer: dict[str, Any] = {
            "stock_id": stock.stock_id,
            "total_count": len(good) + len(bad),
            "success_count": len(good),
            "success_codes": good,
            "success_time": rfc3339(now_s),
            "fail_count": len(bad),
            "fail_codes": bad,
        }
        self._uploads[key] = answer
        return answer

    def take(self, stock_id: str, *, openid: str, appid: str, time_s: int) -> Voucher | None:
        """Somebody takes a coupon; None when the batch gives none now."""
        stock = self.stocks.get(stock_id)
        if stock is None or stock.state != "RUNNING" or not stock.begin_s <= time_s <= stock.end_s:
            return None
        today = day_start(time_s)
        if (
            stock.sent >= stock.max_coupons
            or stock.sent_to[openid] >= stock.per_user
            or (stock.by_day and stock.sent_on[today] >= stock.by_day)
            or (stock.code_mode == "MERCHANT_UPLOAD" and not stock.codes)
        ):
            return None
        if stock.code_mode == "MERCHANT_UPLOAD":
            code = stock.codes.popleft()
        else:
            head = digits(self._corp.seed, self._corp.corp_id, stock_id, length=14)
            code = f"{head}{stock.sent:08d}"
        voucher = Voucher(code, stock, openid, appid, time_s)
        stock.sent += 1
        stock.sent_to[openid] += 1
        stock.sent_on[today] += 1
        self._by_code[code] = voucher
        self._by_person.setdefault((appid, openid), []).append(voucher)
        return voucher

    def by_code(self, code: str) -> Voucher:
        """Raises PayError RESOURCE_NOT_EXISTS."""
        voucher = self._by_code.get(code)
        if voucher is None:
            raise PayError("RESOURCE_NOT_EXISTS", "no such coupon")
        return voucher

    def vouchers_of(self, openid: str, appid: str) -> list[Voucher]:
        """What one person holds or held, newest first."""
        return self._by_person.get((appid, openid), [])[::-1]

    def set_callback(self, mchid: str, url: str) -> None:
        """Where notices of a merchant's batches go."""
        self._callbacks[mchid] = url

    def callback_url(self, mchid: str) -> str:
        """Empty: nowhere."""
        return self._callbacks.get(mchid, "")


def _amount(asked: dict[str, Any]) -> int:
    """The value of one coupon where it is a fixed one, fen."""
    fixed = asked["coupon_use_rule"].get("fixed_normal_coupon")
    value = fixed.get("discount_amount", 0) if isinstance(fixed, dict) else 0
    return value if isinstance(value, int) else 0
