"""Evaluates an admission of the past again and says whether the limits of then still give the same answer.

Pure: what the ledger kept of the admission and the limits of its revision come in. Customers and staff do not come out:
a level is shown as its scope and its endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from siyu.events.types import Lane, LedgerEntry
from siyu.limits.model import LimitSet


class ExplainError(ValueError):
    """The ledger's entry does not say how the action was admitted."""


class _LimitThen(msgspec.Struct, frozen=True):
    id: str
    window: str
    used: int
    amount: int
    allowed: int
    allowance_percent: int


class _LevelThen(msgspec.Struct, frozen=True):
    level: str
    limits: list[_LimitThen]


class _Then(msgspec.Struct, frozen=True):
    at_ms: int
    lane: Lane
    levels: list[_LevelThen]


@dataclass(frozen=True)
class Explained:
    """One limit of one level at the admission."""

    scope: str
    endpoint: str
    id: str
    window: str
    used: int
    """At the admission, by the platform's way of counting: calls in flight included."""
    allowed: int
    """What the lane might fill then, after pacing and refusals."""
    amount: int
    allowance_percent: int
    amount_again: int | None
    """What the registry of that revision says; None: it knows no such limit there."""
    allowed_again: int | None
    """What the lane may fill by the registry, before pacing and refusals, which only lower it."""

    @property
    def same(self) -> bool:
        """The registry gives the amount, and no less than was allowed."""
        return (
            self.amount == self.amount_again and self.allowed_again is not None and self.allowed <= self.allowed_again
        )


@dataclass(frozen=True)
class Explanation:
    """How an action was admitted."""

    action_id: str
    lane: Lane
    corp_id: str
    endpoint: str
    revision: str
    admitted_at_ms: int
    """Business time."""
    limits: tuple[Explained, ...]
    left_out: tuple[str, ...]
    """Limits of the corp and the endpoint that the registry has and the admission did not look at."""

    @property
    def same(self) -> bool:
        """The limits of then give the same answer now."""
        return not self.left_out and all(limit.same for limit in self.limits)


def explain(entry: LedgerEntry, in_force: LimitSet) -> Explanation:
    """``in_force``: the limits of ``entry.limits_revision`` at ``entry.admitted_at_ms``. Raises ExplainError."""
    try:
        then = msgspec.json.decode(entry.admission, type=_Then)
    except msgspec.DecodeError as error:
        raise ExplainError(f"action {entry.action_id}: its admission cannot be read: {error}") from None
    explained: list[Explained] = []
    expected: dict[str, None] = {}
    for level in then.levels:
        scope, endpoint = _parts(level.level)
        known = {limit.id: limit for limit in in_force.of(entry.corp_id, endpoint)}
        # A call without a staff member, a customer or a message has no level of theirs; every call has its corp's.
        expected |= {name: None for name, limit in known.items() if limit.scope == "corp_api"}
        for limit in level.limits:
            again = known.get(limit.id)
            explained.append(
                Explained(
                    scope=scope,
                    endpoint=endpoint,
                    id=limit.id,
                    window=limit.window,
                    used=limit.used,
                    allowed=limit.allowed,
                    amount=limit.amount,
                    allowance_percent=limit.allowance_percent,
                    amount_again=again.amount if again else None,
                    allowed_again=in_force.allowed(again, then.lane, limit.allowance_percent) if again else None,
                )
            )
    if not explained:
        raise ExplainError(f"action {entry.action_id}: its admission names no limit")
    looked_at = {limit.id for limit in explained}
    return Explanation(
        action_id=entry.action_id,
        lane=then.lane,
        corp_id=entry.corp_id,
        endpoint=entry.endpoint,
        revision=entry.limits_revision,
        admitted_at_ms=entry.admitted_at_ms,
        limits=tuple(explained),
        left_out=tuple(name for name in expected if name not in looked_at),
    )


def _parts(level: str) -> tuple[str, str]:
    """Scope and endpoint of a level's key, ``scope|corp|…|endpoint``: the endpoint is that of the call, which need
    not be the action's own (what became of a call is asked elsewhere). Several that count together stand with ``+``,
    and ``#`` sets apart what counts persons."""
    scope, _, rest = level.partition("|")
    return scope, rest.rpartition("|")[2].partition("#")[0].partition("+")[0]
