"""What has been used of the limits, from the records of ``quota.state``. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from siyu.actions.model import QuotaLevel, QuotaList, QuotaWindow, hashed
from siyu.events import QuotaState

TOPIC = "quota.state"
SINGLE = ("staff_api", "customer_api", "message_api")
"""Scopes of one person or one message: there are thousands, and mostly they say nothing."""


class _Window(msgspec.Struct):
    id: str
    window: str
    used: int
    amount: int
    lanes: dict[str, int] = {}
    frozen_until_ms: int = 0
    rate_percent: int = 100


class _View(msgspec.Struct):
    windows: list[_Window]
    in_flight: int = 0


_decode = msgspec.json.Decoder(_View).decode


def read_level(state: QuotaState, *, people: bool = False) -> QuotaLevel:
    """One level. Raises ValueError when its view is none."""
    try:
        view = _decode(state.view)
    except msgspec.DecodeError as error:
        # Its text names a field or a place, and quotes no value.
        raise ValueError(f"a view of quota.state is not readable: {error}") from None
    return QuotaLevel(
        level=state.level if people else masked(state.level),
        corp_id=state.corp_id,
        endpoint=state.endpoint,
        shard=state.shard,
        windows=[
            QuotaWindow(
                id=w.id,
                window=w.window,
                used=w.used,
                amount=w.amount,
                lanes=w.lanes,
                frozen_until_ms=w.frozen_until_ms or None,
                rate_percent=w.rate_percent,
            )
            for w in view.windows
        ],
        in_flight=view.in_flight,
        updated_at_ms=state.updated_at_ms,
    )


def select(
    states: Iterable[QuotaState],
    *,
    at_ms: int,
    business_ms: int,
    corp_id: str = "",
    endpoint: str = "",
    everything: bool = False,
    people: bool = False,
) -> QuotaList:
    """The levels of a corp (and those that all share) and an endpoint; empty: all. ``at_ms`` wall time.

    Raises ValueError for a view that is none.
    """
    levels = []
    left_out = 0
    for state in sorted(states, key=lambda state: state.level):
        if (corp_id and state.corp_id not in ("", corp_id)) or (endpoint and state.endpoint not in ("", endpoint)):
            continue
        if not state.view:
            # A level of one person that nothing holds back, or the marker of a shard's owner.
            left_out += not state.level.startswith("~")
            continue
        level = read_level(state, people=people)
        frozen = any((w.frozen_until_ms or 0) > business_ms for w in level.windows)
        if everything or frozen or scope_of(state.level) not in SINGLE:
            levels.append(level)
        else:
            left_out += 1
    return QuotaList(levels=levels, left_out=left_out, at_ms=at_ms)


def scope_of(level: str) -> str:
    """``corp_api|ww1|…`` → ``corp_api``."""
    return level.partition("|")[0]


def masked(level: str) -> str:
    """``customer_api|corp|customer|endpoint`` with the customer as a hash. Other levels name no customer."""
    scope, *rest = level.split("|")
    if scope != "customer_api":
        return level
    corp_id, customer_id, *others = rest if len(rest) > 1 else ["", *rest]
    return "|".join([scope, corp_id, hashed(customer_id), *others])
