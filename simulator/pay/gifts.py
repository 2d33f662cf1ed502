"""Gifts after payment (支付有礼, fact sheet 3.15): rules that hand out merchant coupons after large payments. Pure.

It is a rule of the platform: nobody is told of a single gift but by the coupon's own notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simulator.pay.errors import PayError
from simulator.pay.ledger import Transaction
from simulator.pay.signing import digits
from simulator.pay.times import rfc3339
from simulator.pay.vouchers import Voucher, VoucherBook
from simulator.world.corp import CorpWorld


@dataclass(slots=True)
class Activity:
    """One activity. ``asked`` is the request that made it."""

    activity_id: str
    creator: str
    out_request_no: str
    asked: dict[str, Any]
    begin_s: int
    end_s: int
    minimum_fen: int
    stock_ids: tuple[str, ...]
    merchants: list[str]
    goods_tags: tuple[str, ...]
    created_s: int
    terminated_s: int = 0
    given: int = 0
    requests: set[str] = field(default_factory=set)
    """Numbers of the calls that added or removed merchants."""

    def status(self, now_s: int) -> str:
        if self.terminated_s:
            return "TERMINATE_ACT_STATUS"
        if now_s < self.begin_s:
            return "CREATE_ACT_STATUS"
        return "OVER_TIME_ACT_STATUS" if now_s > self.end_s else "ONGOING_ACT_STATUS"

    def shown(self, now_s: int) -> dict[str, Any]:
        """As its detail tells it."""
        told: dict[str, Any] = {
            "activity_id": self.activity_id,
            "activity_type": "FULL_SEND_ACT_TYPE",
            **{name: value for name, value in self.asked.items() if value},
            "activity_status": self.status(now_s),
            "creator_merchant_id": self.creator,
            "belong_merchant_id": self.creator,
            "create_time": rfc3339(self.created_s),
            "update_time": rfc3339(self.terminated_s or self.created_s),
        }
        return told


class GiftBook:
    """Every activity of the merchants of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.activities: dict[str, Activity] = {}
        self._by_request: dict[tuple[str, str], Activity] = {}

    def create(self, activity: Activity) -> Activity:
        """Keeps a new activity; the same request again gives the one it made. Raises PayError for another request."""
        known = self._by_request.get((activity.creator, activity.out_request_no))
        if known is not None:
            if known.asked != activity.asked:
                raise PayError("RESOURCE_ALREADY_EXISTS", "out_request_no was used for another activity")
            return known
        head = digits(self._corp.seed, self._corp.corp_id, "activity", length=4)
        activity.activity_id = f"1{head}{len(self.activities):04d}"
        self.activities[activity.activity_id] = activity
        self._by_request[activity.creator, activity.out_request_no] = activity
        return activity

    def knows(self, creator: str, out_request_no: str) -> bool:
        """Whether this request made an activity already."""
        return (creator, out_request_no) in self._by_request

    def activity_of(self, activity_id: str, mchid: str) -> Activity:
        """Raises PayError RESOURCE_NOT_EXISTS."""
        activity = self.activities.get(activity_id)
        if activity is None or activity.creator != mchid:
            raise PayError("RESOURCE_NOT_EXISTS", "no such activity of this merchant")
        return activity

    def reward(self, mchid: str, transaction: Transaction) -> list[Voucher]:
        """What a payment brings its payer; coupon batches themselves limit how many one person gets."""
        given: list[Voucher] = []
        for activity in self.activities.values():
            if (
                activity.status(transaction.time_s) != "ONGOING_ACT_STATUS"
                or mchid not in activity.merchants
                or transaction.amount_fen < activity.minimum_fen
                or (activity.goods_tags and transaction.goods_tag not in activity.goods_tags)
            ):
                continue
            for stock_id in activity.stock_ids:
                voucher = self._corp.of(VoucherBook).take(
                    stock_id, openid=transaction.openid, appid=transaction.appid, time_s=transaction.time_s
                )
                if voucher is not None:
                    activity.given += 1
                    given.append(voucher)
        return given
