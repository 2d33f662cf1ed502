"""From a unionid to the customer, and the ids that stand for people who are not customers yet (fact sheet 3.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.opaque import opaque_id
from simulator.world.relations import ContactChange

_HOUR_S = 3_600
_DAY_S = 86_400


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls of a corp in a window; past it 45009 for as long as the window (fact sheet 4.1). Seconds."""

    window_s: int
    calls: int


class IdentityRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``identity`` of the rules (fact sheet 3.9)."""

    appids: tuple[str, ...] = ("wx0000000000000001",)
    """Official accounts and mini programs of the corp: openids of others belong to another entity."""
    provider_appids: tuple[str, ...] = ("wx0000000000000002",)
    """The same of the service provider (subject_type 1)."""
    provider_agents: tuple[str, ...] = ()
    """Agent ids of apps that count as a service provider's."""
    pending_s: int = 90 * _DAY_S
    batch: int = 100
    idconvert: tuple[Quota, ...] = (
        Quota(_HOUR_S, 100_000),
        Quota(_DAY_S, 480_000),
        Quota(30 * _DAY_S, 7_500_000),
    )
    third_party: tuple[Quota, ...] = (Quota(_HOUR_S, 50_000), Quota(_DAY_S, 240_000))


@dataclass(slots=True)
class _Window:
    """Counts calls of one quota. Seconds of the platform's clock."""

    quota: Quota
    began: float = 0.0
    count: int = 0
    blocked_until: float = 0.0


class Unionids:
    """Identity conversion of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("identity", IdentityRules)
        self._corp = corp
        self._index: dict[str, str] | None = None
        """unionid → customer, where the people cannot say it: made at the first question, then kept up to date."""
        self._pending: dict[str, tuple[str, int]] = {}
        """Person → (pending_id, until when it is good)."""
        self._made = 0
        self._windows: dict[str, list[_Window]] = {}

    def customer(self, unionid: str) -> str:
        """The external_userid of this person, customer or not any more; empty when the corp never met them."""
        people = self._corp.people
        if people.id_of_unionid is not None:
            return people.id_of_unionid(unionid) or ""
        if self._index is None:
            met = dict.fromkeys(customer_id for _, customer_id in self._corp.relations.standing())
            met.update((customer_id, None) for _, customer_id in self._corp.relations.changed)
            self._index = {people.customer(customer_id).unionid: customer_id for customer_id in reversed(met)}
            self._corp.happened.append(self._changed)
        return self._index.get(unionid, "")

    def pending_id(self, person: str, now_s: int) -> str:
        """What stands for a person for 90 days; the same one until then, however it is asked for."""
        known = self._pending.get(person)
        if known is None or now_s >= known[1]:
            self._made += 1
            known = opaque_id(self._corp, "pending", self._made), now_s + self.rules.pending_s
            self._pending[person] = known
        return known[0]

    def count(self, api: str, quotas: Sequence[Quota], clock_s: float) -> None:
        """Counts a call. Raises ApiError 45009 for one too many, and for as long as the window after it."""
        windows = self._windows.setdefault(api, [_Window(quota, clock_s) for quota in quotas])
        if any(clock_s < window.blocked_until for window in windows):
            raise ApiError(45009)
        for window in windows:
            if clock_s - window.began >= window.quota.window_s:
                window.began, window.count = clock_s, 0
            window.count += 1
            if window.count > window.quota.calls:
                window.blocked_until = clock_s + window.quota.window_s
        if any(clock_s < window.blocked_until for window in windows):
            raise ApiError(45009)

    def _changed(self, event: ContactChange) -> None:
        if self._index is not None and event.change == "add":
            unionid = self._corp.people.customer(event.customer_id).unionid
            self._index.setdefault(unionid, event.customer_id)
