"""Cash coupons (代金券, fact sheet 3.15): batches, who holds which coupon, and what was paid with it. Pure.

A coupon uses itself: the next payment that is large enough takes the best one its payer holds. Amounts in fen, times in
epoch seconds of business time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simulator.pay.errors import PayError
from simulator.pay.ledger import Promotion, Refund, Transaction
from simulator.pay.signing import digits
from simulator.pay.times import rfc3339
from simulator.world.corp import CorpWorld
from simulator.world.days import day_start

StockStatus = Literal["unactivated", "audit", "running", "stoped", "paused"]
"""``stoped`` is how the platform spells it."""
_MINUTE_S = 60


@dataclass(slots=True)
class Stock:
    """A batch."""

    stock_id: str
    creator: str
    out_request_no: str
    name: str
    comment: str
    begin_s: int
    end_s: int
    max_coupons: int
    max_amount_fen: int
    max_amount_by_day_fen: int
    """0: no limit a day."""
    per_user: int
    amount_fen: int
    """What one coupon takes off."""
    minimum_fen: int
    """From which payment on."""
    merchants: tuple[str, ...]
    items: tuple[str, ...]
    goods_tags: tuple[str, ...]
    no_cash: bool
    description: str
    after_receive_minutes: int
    """A coupon is good for so long after it was received; 0: as long as the batch."""
    second_day: bool
    """Good only from the day after on."""
    combine_use: bool
    natural_person_limit: bool
    prevent_api_abuse: bool
    created_s: int
    status: StockStatus = "unactivated"
    started_s: int = 0
    stopped_s: int = 0
    sent: int = 0
    sent_to: Counter[str] = field(default_factory=Counter)
    sent_on: Counter[int] = field(default_factory=Counter)
    used: list[Use] = field(default_factory=list)
    returned: list[tuple[Use, Refund]] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As lists and details tell it."""
        told: dict[str, Any] = {
            "stock_id": self.stock_id,
            "stock_creator_mchid": self.creator,
            "stock_name": self.name,
            "status": self.status,
            "create_time": rfc3339(self.created_s),
            "description": self.description,
            "stock_use_rule": {
                "max_coupons": self.max_coupons,
                "max_amount": self.max_amount_fen,
                "max_amount_by_day": self.max_amount_by_day_fen,
                "fixed_normal_coupon": {"coupon_amount": self.amount_fen, "transaction_minimum": self.minimum_fen},
                "max_coupons_per_user": self.per_user,
                "coupon_type": "NORMAL",
                "goods_tag": list(self.goods_tags),
                "combine_use": self.combine_use,
                "natural_person_limit": self.natural_person_limit,
                "prevent_api_abuse": self.prevent_api_abuse,
            },
            "available_begin_time": rfc3339(self.begin_s),
            "available_end_time": rfc3339(self.end_s),
            "distributed_coupons": self.sent,
            "no_cash": self.no_cash,
            "singleitem": bool(self.items),
            "stock_type": "NORMAL",
        }
        if self.started_s:
            told["start_time"] = rfc3339(self.started_s)
        if self.stopped_s:
            told["stop_time"] = rfc3339(self.stopped_s)
        return told


@dataclass(frozen=True, slots=True)
class Use:
    """A coupon went into a payment."""

    coupon: Coupon
    transaction: Transaction
    time_s: int


@dataclass(slots=True)
class Coupon:
    """One coupon of one person."""

    coupon_id: str
    stock: Stock
    openid: str
    appid: str
    sender: str
    """The merchant who sent it."""
    created_s: int
    begin_s: int
    end_s: int
    use: Use | None = None

    def status(self, now_s: int) -> str:
        if self.use is not None:
            return "USED"
        return "EXPIRED" if now_s > self.end_s else "SENDED"

    def shown(self, now_s: int, *, consumed: bool = False) -> dict[str, Any]:
        """As its query tells it; ``consumed``: with what it was used for, which only the notice tells."""
        told: dict[str, Any] = {
            "stock_creator_mchid": self.stock.creator,
            "stock_id": self.stock.stock_id,
            "coupon_id": self.coupon_id,
            "coupon_name": self.stock.name,
            "status": self.status(now_s),
            "description": self.stock.description,
            "create_time": rfc3339(self.created_s),
            "coupon_type": "NORMAL",
            "no_cash": self.stock.no_cash,
            "available_begin_time": rfc3339(self.begin_s),
            "available_end_time": rfc3339(self.end_s),
            "singleitem": bool(self.stock.items),
            "normal_coupon_information": {
                "coupon_amount": self.stock.amount_fen,
                "transaction_minimum": self.stock.minimum_fen,
            },
        }
        if consumed and self.use is not None:
            told["consume_information"] = {
                "consume_time": rfc3339(self.use.time_s),
                "consume_mchid": self.use.transaction.mchid,
                "transaction_id": self.use.transaction.transaction_id,
            }
        return told


class CouponBook:
    """Every batch and coupon of the merchants of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.stocks: dict[str, Stock] = {}
        self._by_request: dict[tuple[str, str], Stock] = {}
        self._sent: dict[tuple[str, str], Coupon] = {}
        self._by_person: dict[tuple[str, str], list[Coupon]] = {}
        """(appid, openid) → coupons in the order they came."""
        self._by_id: dict[str, Coupon] = {}
        self._callbacks: dict[str, tuple[str, bool]] = {}

    def create(self, stock: Stock) -> Stock:
        """Keeps a new batch; the same request again gives the batch it made. Raises PayError for another request."""
        known = self._by_request.get((stock.creator, stock.out_request_no))
        if known is not None:
            same = (known.name, known.begin_s, known.end_s, known.max_coupons, known.amount_fen, known.minimum_fen)
            if same != (stock.name, stock.begin_s, stock.end_s, stock.max_coupons, stock.amount_fen, stock.minimum_fen):
                raise PayError("RESOURCE_ALREADY_EXISTS", "out_request_no was used for another batch")
            return known
        stock.stock_id = self._id("stock", 8, len(self.stocks))
        self.stocks[stock.stock_id] = stock
        self._by_request[stock.creator, stock.out_request_no] = stock
        return stock

    def knows(self, creator: str, out_request_no: str) -> bool:
        """Whether this request made a batch already."""
        return (creator, out_request_no) in self._by_request

    def stock_of(self, stock_id: str, creator: str) -> Stock:
        """Raises PayError RESOURCE_NOT_EXISTS."""
        stock = self.stocks.get(stock_id)
        if stock is None or stock.creator != creator:
            raise PayError("RESOURCE_NOT_EXISTS", "no such batch of this creator")
        return stock

    def move(self, stock: Stock, step: Literal["start", "pause", "restart", "stop"], now_s: int) -> None:
        """Moves a batch through its life. Raises PayError INVALID_REQUEST where that cannot be.

        Start, pause and restart need the batch's time not to be over; stopping is for good.
        """
        allowed = {
            "start": ("unactivated",),
            "pause": ("running",),
            "restart": ("paused",),
            "stop": ("running", "paused"),
        }
        if stock.status not in allowed[step]:
            raise PayError("INVALID_REQUEST", f"a batch that is {stock.status} cannot {step}")
        if step in ("start", "restart") and now_s > stock.end_s:
            raise PayError("INVALID_REQUEST", "the batch's time is over")
        stock.status = {"start": "running", "pause": "paused", "restart": "running", "stop": "stoped"}[step]  # type: ignore[assignment]
        if step == "start":
            stock.started_s = now_s
        elif step == "stop":
            stock.stopped_s = now_s

    def send(self, stock: Stock, *, openid: str, appid: str, sender: str, out_request_no: str, now_s: int) -> Coupon:
        """Gives somebody a coupon; the same request again gives the same coupon. Raises PayError."""
        known = self._sent.get((sender, out_request_no))
        if known is not None:
            if (known.stock, known.openid, known.appid) != (stock, openid, appid):
                raise PayError("INVALID_REQUEST", "out_request_no was used for another person or batch")
            return known
        if stock.status != "running":
            raise PayError("REQUEST_BLOCKED", f"the batch is {stock.status}")
        if not stock.begin_s <= now_s <= stock.end_s:
            raise PayError("REQUEST_BLOCKED", "the activity has not begun or is over")
        if stock.sent >= stock.max_coupons:
            raise PayError("NOT_ENOUGH", "the batch's budget is used up")
        today = day_start(now_s)
        by_day = stock.max_amount_by_day_fen
        if by_day and (stock.sent_on[today] + 1) * stock.amount_fen > by_day:
            raise PayError("NOT_ENOUGH", "the batch's budget of today is used up")
        if stock.sent_to[openid] >= stock.per_user:
            raise PayError("RULE_LIMIT", "this person has had as many as one may have")
        begin_s = today + 86_400 if stock.second_day else now_s
        lives_s = stock.after_receive_minutes * _MINUTE_S
        coupon = Coupon(
            coupon_id=self._id("coupon", 11, len(self._by_id)),
            stock=stock,
            openid=openid,
            appid=appid,
            sender=sender,
            created_s=now_s,
            begin_s=max(stock.begin_s, begin_s),
            end_s=min(stock.end_s, begin_s + lives_s) if lives_s else stock.end_s,
        )
        stock.sent += 1
        stock.sent_to[openid] += 1
        stock.sent_on[today] += 1
        self._sent[sender, out_request_no] = coupon
        self._by_person.setdefault((appid, openid), []).append(coupon)
        self._by_id[coupon.coupon_id] = coupon
        return coupon

    def coupon_of(self, coupon_id: str, openid: str, appid: str) -> Coupon:
        """Raises PayError RESOURCE_NOT_EXISTS."""
        coupon = self._by_id.get(coupon_id)
        if coupon is None or (coupon.openid, coupon.appid) != (openid, appid):
            raise PayError("RESOURCE_NOT_EXISTS", "this person has no such coupon")
        return coupon

    def coupons_of(self, openid: str, appid: str) -> list[Coupon]:
        """What one person holds or held, newest first."""
        return self._by_person.get((appid, openid), [])[::-1]

    def redeem(self, mchid: str, owned: Mapping[str, str], transaction: Transaction) -> Coupon | None:
        """The payment takes the best coupon its payer has for it. ``owned``: the payer's openid by appid."""
        usable = [
            coupon
            for appid, openid in owned.items()
            for coupon in self._by_person.get((appid, openid), ())
            if coupon.use is None
            and coupon.begin_s <= transaction.time_s <= coupon.end_s
            and mchid in coupon.stock.merchants
            and coupon.stock.minimum_fen <= transaction.amount_fen
            and (not coupon.stock.goods_tags or transaction.goods_tag in coupon.stock.goods_tags)
        ]
        best = max(usable, key=lambda coupon: (coupon.stock.amount_fen, -coupon.end_s), default=None)
        if best is None:
            return None
        best.use = Use(best, transaction, transaction.time_s)
        best.stock.used.append(best.use)
        transaction.promotions.append(
            Promotion(best.coupon_id, best.stock.name, best.stock.stock_id, best.stock.amount_fen, best.stock.no_cash)
        )
        return best

    def returned(self, transaction: Transaction, refund: Refund) -> None:
        """A refund is through: it stands in the batch's refund flow; when all is refunded the coupon is free again.

        The fact sheet says nothing of coupons and refunds; this is what customers are told to expect.
        """
        for promotion in transaction.promotions:
            coupon = self._by_id.get(promotion.coupon_id)
            if coupon is None or coupon.use is None or coupon.use.transaction is not transaction:
                continue
            coupon.stock.returned.append((coupon.use, refund))
            back_fen = sum(done.amount_fen for done in transaction.refunds if done.status == "SUCCESS")
            if back_fen == transaction.amount_fen:
                coupon.use = None

    def set_callback(self, mchid: str, url: str, on: bool) -> None:
        """Where coupon notices of a merchant's batches go, and whether."""
        self._callbacks[mchid] = (url, on)

    def callback(self, mchid: str) -> str:
        """The address that is set, whether notices are on or not; empty when none is."""
        return self._callbacks.get(mchid, ("", False))[0]

    def callback_url(self, mchid: str) -> str:
        """Where notices go now; empty: nowhere."""
        url, on = self._callbacks.get(mchid, ("", False))
        return url if on else ""

    def __iter__(self) -> Iterator[Coupon]:
        """Every coupon in the order they were sent."""
        return iter(self._by_id.values())

    def _id(self, kind: str, length: int, serial: int) -> str:
        # The head names corp and kind, the tail counts: unique, and no two corps' ids meet.
        head = digits(self._corp.seed, self._corp.corp_id, kind, length=length - 5)
        return f"1{head}{serial:06d}"
