"""How many external contacts a corp is served with, how many it has paid for, and what follows when that is used up
(fact sheet 5.1, 6.13).

Counted are distinct people: friends of any staff member, and people who are only in customer groups. The count follows
the changes one by one; nothing here walks over all customers but, once, an opening that cannot say how many people it
holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from simulator.world.corp import CorpWorld
from simulator.world.groups import Groups
from simulator.world.relations import ContactChange, Relations

_PAGE = 10_000
_YEAR_S = 365 * 86_400
_CAN_END = frozenset({"delete_by_customer", "delete_by_staff", "delete_by_transfer"})


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scale that can be bought for a year. ``price_fen``: fen a year."""

    size: int
    price_fen: int


class PriceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sold from an instant (epoch s) on. Tiers ascend."""

    since_s: int
    free: int
    tiers: tuple[Tier, ...]


class Purchase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scale that was bought. Epoch s, ``until_s`` excluded; fen."""

    size: int
    from_s: int
    until_s: int
    price_fen: int = 0


_FEN_A_CONTACT = 10
# Known are the tiers of 5,000 and 20,000 and the average of 0.1 yuan a contact and year; the other sizes are this
# stand-in's (fact sheet 5.1: the whole table is shown in the administrator's console only).
_SIZES = (5_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)


class ScaleRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``scale`` of the rules (fact sheet 5.1). Dated data: a change of the platform's is an entry more."""

    prices: tuple[PriceList, ...] = (PriceList(0, 2_000, tuple(Tier(size, size * _FEN_A_CONTACT) for size in _SIZES)),)
    """In order of ``since_s``."""
    enforced_from_s: int = 1_757_260_800
    """2025-09-08 00:00 Beijing: before it nothing is ever full."""
    verified: bool = True
    unverified_cap: int = 100
    """Contacts of a corp that is not verified, whatever it bought (older texts: 200)."""
    purchased: tuple[Purchase, ...] = ()
    """What the corp had bought when the story begins, or will buy."""
    buys_itself: bool = True
    """Whether an administrator buys the next tier the moment the scale is used up: then the corp is never full."""
    one_way_counts: bool = True
    """Whether customers who deleted us count until the staff side deletes them too (not stated officially)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The scale at an instant."""

    used: int
    size: int
    until_s: int
    """When the size next falls; 0: never."""


class Scale:
    """The scale of one corp. Has to watch the world from its opening on."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("scale", ScaleRules)
        self.purchases: list[Purchase] = list(self.rules.purchased)
        """All that was bought, in order of buying."""
        self._groups = corp.of(Groups)
        self._relations: Relations = corp.relations
        self._base: int | None = None
        self._moved = 0
        self._served: dict[str, bool] = {}
        """Customers whom anything has happened to since the opening → whether they are friends of somebody."""
        for customer_id in {customer_id for _, customer_id in corp.relations.changed}:
            self._count(customer_id, self._is_friend(customer_id))
        corp.happened.append(self._changed)
        corp.bars.append(self._bars)
        # No group invitations either (fact sheet 5.1).
        self._groups.bars.append(lambda customer_id, now_s: not self.may_add(customer_id, now_s))

    @property
    def friends(self) -> int:
        """Distinct customers of any staff member."""
        if self._base is None:
            self._base = people_at_opening(self._relations)
        return self._base + self._moved

    @property
    def used(self) -> int:
        """Distinct external contacts that are served."""
        return self.friends + len(self._groups.outside_members())

    def is_served(self, customer_id: str) -> bool:
        """Whether this person counts already."""
        return self._is_friend(customer_id) or customer_id in self._groups.outside_members()

    def size(self, now_s: int) -> int:
        """How many the corp may have."""
        if not self.rules.verified:
            return self.rules.unverified_cap
        return max([self._prices(now_s).free, *(p.size for p in self.purchases if p.from_s <= now_s < p.until_s)])

    def standing(self, now_s: int) -> Standing:
        """All of it, for those who show or forecast it."""
        ends = [p.until_s for p in self.purchases if p.from_s <= now_s < p.until_s]
        return Standing(self.used, self.size(now_s), min(ends, default=0))

    def full(self, now_s: int) -> bool:
        """Whether there is room for nobody else: 610023 for whatever makes new contacts."""
        return self._short(now_s, 1)

    def over(self, now_s: int) -> bool:
        """Whether there are more than paid for, as after an expiry: 610023 for every reach by the corp."""
        return self._short(now_s, 0)

    def may_add(self, customer_id: str, now_s: int) -> bool:
        """Whether this customer can become a friend: there is room, or they count already and no more than paid for."""
        return not self.full(now_s) or (self.is_served(customer_id) and not self.over(now_s))

    def _short(self, now_s: int, more: int) -> bool:
        if now_s < self.rules.enforced_from_s:
            return False
        wanted = self.used + more
        if wanted <= self.size(now_s):
            return False
        return not (self.rules.buys_itself and self.rules.verified and self._buy(now_s, wanted))

    def _buy(self, now_s: int, wanted: int) -> bool:
        """Buys the smallest tier that holds ``wanted``, for a year; False when none does."""
        tier = next((tier for tier in self._prices(now_s).tiers if tier.size >= wanted), None)
        if tier is None:
            return False
        self.purchases.append(Purchase(tier.size, now_s, now_s + _YEAR_S, tier.price_fen))
        return True

    def _prices(self, now_s: int) -> PriceList:
        return next((p for p in reversed(self.rules.prices) if p.since_s <= now_s), self.rules.prices[0])

    def _bars(self, event: ContactChange) -> bool:
        """No new friends (fact sheet 5.1): who comes while there is no place simply does not become one."""
        return event.change in ("add", "add_half") and not self.may_add(event.customer_id, event.time_s)

    def _changed(self, event: ContactChange) -> None:
        if event.change == "add":
            self._count(event.customer_id, True)
        elif event.change in _CAN_END:
            self._count(event.customer_id, self._is_friend(event.customer_id))

    def _count(self, customer_id: str, now: bool) -> None:
        """Counts one customer anew, who is a friend of somebody ``now`` or not."""
        before = self._served.get(customer_id)
        if before is None:
            opening = self._relations.opening
            before = opening is not None and bool(opening.followers_of(customer_id))
        self._moved += now - before
        self._served[customer_id] = now

    def _is_friend(self, customer_id: str) -> bool:
        followers = self._relations.followers_of(customer_id)
        return any(self.rules.one_way_counts or pair.friend for _, pair in followers)


def people_at_opening(relations: Relations) -> int:
    """Distinct customers the story begins with: what the opening says (``people_count``), or else counted, once."""
    opening = relations.opening
    if opening is None:
        return 0
    said: int | None = getattr(opening, "people_count", None)
    if said is not None:
        return said
    found = 0
    for start in range(0, len(opening), _PAGE):
        for staff_id, customer_id in opening.pairs(start, _PAGE):
            # Everybody is counted at the first who follows them, so that no set of all people is needed.
            found += opening.followers_of(customer_id)[0] == staff_id
    return found
