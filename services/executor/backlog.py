"""What waits to be called at one corp × endpoint, in one lane: fair between campaigns and staff, earliest deadline
first inside a share.

Deficit round robin in two rings: campaigns take turns, and inside a campaign its staff members. A turn is worth one
call; an action that needs several waits until its campaign and its staff member have saved for it. So a campaign of a
million actions delays one of a hundred by a hundred calls and not by a million, and nobody starves. A lane that is not
shared uses one share, which makes it a plain queue by deadline.

An action is one integer here, ``deadline | number``: a million of them cost 60 MB. What they are is kept elsewhere.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

NO_DEADLINE = (1 << 48) - 1
_NUMBER_BITS = 56
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1


class Waiting(NamedTuple):
    """One action that waits. ``deadline_ms`` is business time, NO_DEADLINE when there is none."""

    number: int
    deadline_ms: int
    campaign: str
    staff: str
    cost: int


class _Share:
    __slots__ = ("credit", "heap")

    def __init__(self) -> None:
        self.heap: list[int] = []
        self.credit = 0


class _Campaign:
    __slots__ = ("credit", "shares")

    def __init__(self) -> None:
        self.shares: OrderedDict[str, _Share] = OrderedDict()
        self.credit = 0


class Backlog:
    """Pure: nothing here knows a clock or a limit."""

    def __init__(self) -> None:
        # Both rings are ordered dicts: whose turn it is stands first, and one of 20,000 leaves without a search.
        self._campaigns: OrderedDict[str, _Campaign] = OrderedDict()
        self._costs: dict[int, int] = {}
        self._size = 0
        self._walk: Iterator[tuple[str, str]] | None = None

    def __len__(self) -> int:
        return self._size

    def push(self, number: int, deadline_ms: int, campaign: str = "", staff: str = "", cost: int = 1) -> None:
        """Adds an action; ``number`` tells it apart from the others of this lane and is in order of arrival."""
        entry = self._campaigns.get(campaign)
        if entry is None:
            entry = self._campaigns[campaign] = _Campaign()
        share = entry.shares.get(staff)
        if share is None:
            share = entry.shares[staff] = _Share()
        heapq.heappush(share.heap, (deadline_ms or NO_DEADLINE) << _NUMBER_BITS | number)
        if cost != 1:
            self._costs[number] = cost
        self._size += 1

    def pop(self, may: Callable[[str], bool] | None = None) -> Waiting | None:
        """The next in turn of those whose campaign ``may`` go; None when there is none."""
        campaigns = self._campaigns
        skipped = 0
        while skipped < len(campaigns):
            campaign, entry = next(iter(campaigns.items()))
            if may is not None and not may(campaign):
                campaigns.move_to_end(campaign)
                skipped += 1
                continue
            staff, share = next(iter(entry.shares.items()))
            cost = self._costs.get(share.heap[0] & _NUMBER_MASK, 1)
            if entry.credit + 1 < cost:
                entry.credit += 1
                campaigns.move_to_end(campaign)
                skipped = 0
                continue
            if share.credit + 1 < cost:
                share.credit += 1
                entry.shares.move_to_end(staff)
                continue
            entry.credit = max(0, entry.credit + 1 - cost)
            share.credit = max(0, share.credit + 1 - cost)
            campaigns.move_to_end(campaign)
            entry.shares.move_to_end(staff)
            return self._take(campaign, entry, staff, share)
        return None

    def expired(self, now_ms: int, budget: int, most: int = 1 << 30) -> list[Waiting]:
        """Takes out up to ``most`` that can no longer start in time, looking at up to ``budget`` shares a time, round
        and round but at none twice."""
        found: list[Waiting] = []
        limit = now_ms << _NUMBER_BITS
        for _ in range(min(budget, sum(len(entry.shares) for entry in self._campaigns.values()))):
            place = self._next_share()
            if place is None:
                break
            campaign, staff = place
            while (entry := self._campaigns.get(campaign)) and (share := entry.shares.get(staff)):
                if len(found) >= most:
                    return found
                if share.heap[0] >= limit:
                    break
                found.append(self._take(campaign, entry, staff, share))
        return found

    def drain(self, campaign: str | None = None) -> list[Waiting]:
        """Takes out everything of a campaign; None: everything."""
        found: list[Waiting] = []
        for one in [campaign] if campaign is not None else list(self._campaigns):
            while entry := self._campaigns.get(one):
                staff, share = next(iter(entry.shares.items()))
                found.append(self._take(one, entry, staff, share))
        return found

    def _take(self, campaign: str, entry: _Campaign, staff: str, share: _Share) -> Waiting:
        key = heapq.heappop(share.heap)
        number = key & _NUMBER_MASK
        if not share.heap:
            del entry.shares[staff]
            if not entry.shares:
                del self._campaigns[campaign]
        self._size -= 1
        return Waiting(number, key >> _NUMBER_BITS, campaign, staff, self._costs.pop(number, 1))

    def _next_share(self) -> tuple[str, str] | None:
        for _ in range(2):
            if self._walk is None:
                self._walk = iter([(c, s) for c, entry in self._campaigns.items() for s in entry.shares])
            place = next(self._walk, None)
            if place is not None:
                return place
            self._walk = None
        return None
