"""Refunds as WeChat Pay limits and ends them: those of merchants (fact sheet 3.15) and of miniapppay (3.10). Pure."""

from __future__ import annotations

from random import Random
from typing import Literal

import msgspec

RefundStatus = Literal["PROCESSING", "SUCCESS", "CLOSED", "ABNORMAL"]


class RefundRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits and chances of refunds, part of the sections ``pay`` and ``miniapppay`` of the rules."""

    refund_per_order_s: int = 60
    """Least distance between two refunds of one order; for miniapppay between two requests, repeated ones too."""
    refunds_per_order: int = 50
    refund_within_s: int = 365 * 86_400
    refunds_per_second: int = 150
    refund_least_s: int = 5
    refund_most_s: int = 60
    """A refund asked for by a call takes between these, drawn evenly."""
    refund_abnormal_share: float = 0.01
    """Refunds that the payer's bank cannot take."""
    refund_closed_share: float = 0.002


def refund_end(rules: RefundRules, chance: Random) -> tuple[int, RefundStatus]:
    """How long an accepted refund takes in seconds, and how it ends."""
    takes_s = chance.randint(rules.refund_least_s, max(rules.refund_least_s, rules.refund_most_s))
    fate = chance.random()
    if fate < rules.refund_abnormal_share:
        return takes_s, "ABNORMAL"
    if fate < rules.refund_abnormal_share + rules.refund_closed_share:
        return takes_s, "CLOSED"
    return takes_s, "SUCCESS"
