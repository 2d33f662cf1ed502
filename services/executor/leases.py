"""A limit that several shards draw from (an egress and an API) is never exceeded, fully used, and shared fairly.

The shard of the level's key owns it; every shard holds what the owner granted it. They exchange ``QuotaLease`` records
through a topic that may delay, double and reorder them:

* ``ask``: the holder would use so many calls. A newer ask replaces an older one.
* ``grant``: the owner counts so many calls as used **from now on**. The holder may start them until ``start_by_ms``.
* ``settle``: of a grant so many calls have ended and so many come back, in total so far. Numbers only grow, so a
  doubled or late one changes nothing.

Why nothing is exceeded. A granted call counts at the owner until it is settled, and from then for a window: the holder
settles what has ended. What a holder never settles (it was killed) counts until ``start_by + call timeout`` and for a
window more, and no process starts it later. A grant stands in the owner's state of the same transaction that shows it,
so the next owner counts it too. It names the incarnation of its holder: who takes over from that holder cannot use it.

Both sides are pure machines. Times are business time, epoch ms UTC.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass

from services.executor.governor import DirtyLevel, LevelView, Reachable, kind_of, most_used, rules_of
from services.executor.levels import (
    AFTER_FINISH,
    LANES,
    NEVER,
    PERSONS,
    Level,
    Rules,
    StateError,
    split_key,
    view_json,
    view_of,
)
from siyu.events.types import QuotaLease
from siyu.limits import LimitSet, Sliding
from siyu.limits.model import window_order
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN

__all__ = ["Holder", "LeaseTimes", "Leases", "Owner"]

_LANES = len(LANES)
_UNSEEN_MS = 600_000
"""A holder that was not heard of for so long, and has no grants, is forgotten."""


@dataclass(frozen=True)
class LeaseTimes:
    """How long things take, ms of business time."""

    life_ms: int = 3_000
    """From a grant to the last start of a call of it."""
    start_slack_ms: int = 500
    """A call must have so long from being taken to its start."""
    call_timeout_ms: int = 20_000
    """From the last start to the end of the longest call."""
    grant_every_ms: int = 50
    """The owner collects asks for so long, so that the first does not get everything."""
    settle_every_ms: int = 100
    ask_again_ms: int = 1_000
    """An ask without a grant is repeated: the owner may be another."""
    ahead_ms: int = 250
    """A holder asks for what it will use in so long: the way to the owner and back, and a cycle of either."""
    idle_ms: int = 500
    """What nobody took for so long goes back."""

    def scaled(self, rate: float) -> LeaseTimes:
        """The same lengths of wall time when business time runs ``rate`` times as fast."""
        return LeaseTimes(**{name: max(1, round(value * rate)) for name, value in asdict(self).items()})


class _Grant:
    """Calls a holder may make."""

    __slots__ = ("calls", "ended", "flying", "lane", "left", "request", "returned", "start_by_ms", "told")

    def __init__(self, request: int, calls: int, start_by_ms: int) -> None:
        self.request = request
        self.lane = request % _LANES
        self.calls = calls
        self.left = calls
        self.flying = 0
        self.ended = 0
        self.returned = 0
        self.start_by_ms = start_by_ms
        self.told = 0
        """Calls that were settled with the owner."""


class _Demand:
    """What one lane wants of one level."""

    __slots__ = ("asked", "asked_ms", "measured_ms", "rate", "starved", "taken", "taken_ms")

    def __init__(self) -> None:
        self.rate = 0.0
        """Calls per ms."""
        self.taken = 0
        self.measured_ms = 0
        self.taken_ms = 0
        self.starved = 0
        """Calls that were refused since the last ask."""
        self.asked = 0
        """The ask that has no answer yet; 0: none."""
        self.asked_ms = 0


class Holder:
    """What one shard may use of one level."""

    def __init__(self, level: str, shard: int, incarnation: str, headroom: Sequence[float], times: LeaseTimes) -> None:
        self.level = level
        self.start_by_ms = 0
        """Until when the calls that were taken last may start."""
        self._shard = shard
        self._incarnation = incarnation
        self._times = times
        self._headroom = tuple(headroom)
        self._grants: list[_Grant] = []  # by start_by_ms
        self._demands = [_Demand() for _ in LANES]
        self._seen: dict[int, int] = {}
        """Answered asks, and until when their grants could come again."""
        self._sequence = 0
        self._settled_ms = 0

    def take(self, lane: int, units: int, now_ms: int) -> int:
        """0: taken; else when to ask again. A lane may use what was granted to one that may fill less of the level."""
        latest = now_ms + self._times.start_slack_ms
        demand = self._demands[lane]
        demand.taken_ms = now_ms
        usable = [
            grant
            for grant in self._grants
            if grant.left and grant.start_by_ms >= latest and self._headroom[grant.lane] <= self._headroom[lane]
        ]
        if sum(grant.left for grant in usable) < units:
            demand.starved = max(demand.starved, units)
            return now_ms + self._times.grant_every_ms
        demand.taken += units
        usable.sort(key=lambda grant: grant.lane != lane)
        self.start_by_ms = NEVER
        for grant in usable:
            part = min(units, grant.left)
            grant.left -= part
            grant.flying += part
            units -= part
            self.start_by_ms = min(self.start_by_ms, grant.start_by_ms)
            if not units:
                break
        return 0

    def finish(self, units: int) -> None:
        """So many taken calls have ended. Which grants they came from does not matter: the oldest go first, so that
        what is still under way is never held to be over sooner than it is."""
        for grant, part in self._flying(units):
            grant.flying -= part
            grant.ended += part

    def give_back(self, units: int) -> None:
        """So many taken calls were certainly never sent."""
        for grant, part in self._flying(units):
            grant.flying -= part
            grant.left += part

    def give_up(self) -> None:
        """Takes nothing any more: what is left goes back with the next words."""
        for grant in self._grants:
            grant.returned += grant.left
            grant.left = 0
        self._settled_ms = 0
        for demand in self._demands:
            demand.asked = demand.starved = 0
            demand.taken_ms = 0

    def receive(self, lease: QuotaLease, now_ms: int) -> None:
        """A grant. One for another incarnation, or one that was seen, changes nothing."""
        if lease.kind != "grant" or lease.holder != self._incarnation or lease.request in self._seen:
            return
        if lease.request // _LANES > self._sequence or lease.calls < 1:
            return
        self._seen[lease.request] = max(now_ms, lease.start_by_ms) + _UNSEEN_MS
        self._grants.append(_Grant(lease.request, lease.calls, lease.start_by_ms))
        self._grants.sort(key=lambda grant: grant.start_by_ms)
        demand = self._demands[lease.request % _LANES]
        if demand.asked == lease.request:
            demand.asked = 0

    def outgoing(self, now_ms: int) -> list[QuotaLease]:
        """Asks and settlements that are due."""
        return self._asks(now_ms) + self._settlements(now_ms)

    def due_ms(self) -> int:
        """When ``outgoing`` has something to say though nothing happens."""
        times, due = self._times, NEVER
        for demand in self._demands:
            if demand.asked:
                due = min(due, demand.asked_ms + times.ask_again_ms)
            elif demand.starved:
                due = 0
        for grant in self._grants:
            if grant.ended + grant.returned > grant.told:
                due = min(due, self._settled_ms + times.settle_every_ms)
            if grant.left:
                idle_ms = self._demands[grant.lane].taken_ms + times.idle_ms
                due = min(due, grant.start_by_ms - times.start_slack_ms, idle_ms)
        return due

    def _flying(self, units: int) -> list[tuple[_Grant, int]]:
        parts = []
        for grant in self._grants:
            part = min(units, grant.flying)
            if part:
                parts.append((grant, part))
                units -= part
        if units:
            raise ValueError(f"{units} calls end at a shared level that were not taken there")
        return parts

    def _asks(self, now_ms: int) -> list[QuotaLease]:
        asks = []
        times = self._times
        for lane, demand in enumerate(self._demands):
            passed = now_ms - demand.measured_ms
            if passed >= times.ahead_ms:
                rate = demand.taken / passed
                # What is taken comes in bursts; half of what was known is believed on.
                demand.rate = rate if passed > 4 * times.ahead_ms else (demand.rate + rate) / 2
                demand.taken, demand.measured_ms = 0, now_ms
            if demand.asked and now_ms - demand.asked_ms < times.ask_again_ms:
                continue
            if now_ms - demand.taken_ms >= times.idle_ms:
                demand.asked = demand.starved = 0
                continue
            ahead = int(demand.rate * times.ahead_ms) + 1
            left = sum(grant.left for grant in self._grants if grant.lane == lane)
            # Who was refused does not know how much it could use: twice of what it had is asked for.
            wanted = max(2 * ahead, 4, demand.starved) if demand.starved else ahead - left
            if demand.starved or 2 * left < ahead:
                self._sequence += 1
                demand.asked, demand.asked_ms, demand.starved = self._sequence * _LANES + lane, now_ms, 0
                asks.append(self._word("ask", demand.asked, wanted, 0, now_ms))
        return asks

    def _settlements(self, now_ms: int) -> list[QuotaLease]:
        times = self._times
        for grant in self._grants:
            idle = now_ms - self._demands[grant.lane].taken_ms >= times.idle_ms
            if grant.left and (idle or grant.start_by_ms < now_ms + times.start_slack_ms):
                grant.returned += grant.left
                grant.left = 0
        if now_ms - self._settled_ms < times.settle_every_ms:
            return []
        settlements = []
        for grant in self._grants:
            if grant.ended + grant.returned > grant.told:
                grant.told = grant.ended + grant.returned
                settlements.append(self._word("settle", grant.request, grant.ended, grant.returned, now_ms))
        if settlements:
            self._settled_ms = now_ms
            self._grants = [grant for grant in self._grants if grant.told < grant.calls]
        for request in [request for request, until in self._seen.items() if until < now_ms]:
            del self._seen[request]
        return settlements

    def _word(self, kind: str, request: int, calls: int, unused: int, now_ms: int) -> QuotaLease:
        return QuotaLease(
            kind="ask" if kind == "ask" else "settle",
            level=self.level,
            holder=self._incarnation,
            shard=self._shard,
            request=request,
            calls=calls,
            unused=unused,
            start_by_ms=0,
            written_at_ms=now_ms,
        )


class _Granted:
    """What an owner knows of a grant."""

    __slots__ = ("calls", "ended", "returned", "start_by_ms")

    def __init__(self, calls: int, start_by_ms: int, ended: int = 0, returned: int = 0) -> None:
        self.calls = calls
        self.start_by_ms = start_by_ms
        self.ended = ended
        self.returned = returned

    @property
    def open(self) -> int:
        return self.calls - self.ended - self.returned


class _Known:
    """A holder, as an owner knows it."""

    __slots__ = ("answered", "asks", "grants", "heard_ms", "shard")

    def __init__(self, shard: int, heard_ms: int) -> None:
        self.shard = shard
        self.heard_ms = heard_ms
        self.answered = [0] * _LANES
        """The newest ask that was granted, by lane: the same or an older one is not granted again."""
        self.asks: dict[int, tuple[int, int, int]] = {}
        """By lane: request, calls still wanted, when it came."""
        self.grants: dict[int, _Granted] = {}


_MAGIC = b"QO"
_VERSION = 1
_HEAD = struct.Struct("<2sBHI")
_HOLDER = struct.Struct("<HiqqqqqH")
_GRANT = struct.Struct("<qIIIq")
_CHECKSUM = struct.Struct("<I")


class Owner:
    """One shared level: its windows, and who was granted what."""

    def __init__(self, key: str, rules: Rules, times: LeaseTimes) -> None:
        self.level = Level(key, rules)
        self.urgent = False
        """The written state does not count a grant."""
        self.relaxed = False
        """The written state counts more than it must."""
        self._times = times
        self._known: dict[str, _Known] = {}
        self._grant_from_ms = 0
        """Before, there is nothing to grant, or too little time has passed."""
        self._turn = 0

    def receive(self, lease: QuotaLease, now_ms: int) -> None:
        """An ask or a settlement."""
        self._grant_from_ms = min(self._grant_from_ms, now_ms + self._times.grant_every_ms)
        known = self._known.get(lease.holder)
        if lease.kind == "ask":
            if known is None:
                known = self._known[lease.holder] = _Known(lease.shard, now_ms)
                for other in self._known.values():
                    if other is not known and other.shard == lease.shard:
                        other.asks.clear()  # its shard is another's now
            known.heard_ms = max(known.heard_ms, now_ms)
            lane = lease.request % _LANES
            newest = max(known.answered[lane], known.asks.get(lane, (0, 0, 0))[0])
            if lease.request > newest and lease.calls > 0:
                known.asks[lane] = (lease.request, lease.calls, now_ms)
        elif lease.kind == "settle" and known is not None:
            known.heard_ms = max(known.heard_ms, now_ms)
            grant = known.grants.get(lease.request)
            if grant is None:
                return
            ended = min(max(lease.calls, grant.ended), grant.calls)
            returned = min(max(lease.unused, grant.returned), grant.calls - ended)
            if ended > grant.ended:
                self.level.end(ended - grant.ended, now_ms)
                grant.ended = ended
            if returned > grant.returned:
                self.level.ended += returned - grant.returned
                grant.returned = returned
            if grant.open <= 0:
                del known.grants[lease.request]
            self.relaxed = True

    def outgoing(self, now_ms: int) -> list[QuotaLease]:
        """Grants. They must be written in one transaction with the state that ``pack`` gives after them."""
        self._expire(now_ms)
        if now_ms < self._grant_from_ms or not any(known.asks for known in self._known.values()):
            return []
        self.level.refresh(now_ms, _all)
        grants = []
        for lane in range(_LANES):
            for name, request, calls in self._shares(lane, now_ms):
                known = self._known[name]
                known.answered[lane] = request
                start_by_ms = now_ms + self._times.life_ms
                known.grants[request] = _Granted(calls, start_by_ms)
                self.level.admitted += calls
                grants.append(
                    QuotaLease(
                        kind="grant",
                        level=self.level.key,
                        holder=name,
                        shard=known.shard,
                        request=request,
                        calls=calls,
                        unused=0,
                        start_by_ms=start_by_ms,
                        written_at_ms=now_ms,
                    )
                )
        self.urgent = self.urgent or bool(grants)
        self._grant_from_ms = now_ms + self._times.grant_every_ms
        waiting = [lane for lane in range(_LANES) if any(lane in known.asks for known in self._known.values())]
        if waiting:
            self.level.refresh(now_ms, _all)
            freed = [self.level.again(lane, 1, now_ms, _all) for lane in waiting]
            # Who waits for calls under way is served when they are settled.
            self._grant_from_ms = max(self._grant_from_ms, min(at if at != AFTER_FINISH else NEVER for at in freed))
        return grants

    def due_ms(self) -> int:
        """When ``outgoing`` has something to do though nothing came in."""
        due = NEVER
        for known in self._known.values():
            if known.asks:
                due = min(due, self._grant_from_ms)
            for grant in known.grants.values():
                due = min(due, grant.start_by_ms + self._times.call_timeout_ms + 1)
        return due

    def change(self, rules: Rules) -> None:
        self.level.change(rules)

    def assume(self, units: int, age_ms: int, now_ms: int) -> None:
        """So many calls may have been made that nobody counted here: at least so long ago, not counting that they may
        be under way still."""
        last_ms = now_ms - age_ms + self._times.life_ms + self._times.call_timeout_ms
        self.level.count(units, last_ms, last_ms)
        self.urgent = True

    def pack(self, now_ms: int) -> bytes:
        """State for the next owner."""
        level = self.level.pack(now_ms, now_ms, 0)
        parts = [_HEAD.pack(_MAGIC, _VERSION, len(self._known), len(level))]
        for name, known in self._known.items():
            encoded = name.encode()
            parts.append(
                _HOLDER.pack(len(encoded), known.shard, known.heard_ms, *known.answered, len(known.grants)) + encoded
            )
            parts += [
                _GRANT.pack(request, grant.calls, grant.ended, grant.returned, grant.start_by_ms)
                for request, grant in known.grants.items()
            ]
        packed = b"".join((*parts, level))
        return packed + _CHECKSUM.pack(zlib.crc32(packed))

    def unpack(self, state: bytes, now_ms: int) -> None:
        """Takes over from the owner before. Raises StateError."""
        if state[:2] != _MAGIC:  # written by an executor that shared the level with nobody
            self.level.unpack(state, now_ms)
            return
        try:
            self._unpack(state, now_ms)
        except (struct.error, UnicodeDecodeError) as error:
            raise StateError(f"the shared quota state of {self.level.rules.endpoint}: {error}") from None

    def _unpack(self, state: bytes, now_ms: int) -> None:
        body = state[: -_CHECKSUM.size]
        if zlib.crc32(body) != _CHECKSUM.unpack(state[-_CHECKSUM.size :])[0]:
            raise StateError(f"the shared quota state of {self.level.rules.endpoint} is damaged, its checksum differs")
        _, version, holders, size = _HEAD.unpack_from(body)
        if version != _VERSION:
            raise StateError(
                f"the shared quota state of {self.level.rules.endpoint} has version {version}, "
                f"this executor reads {_VERSION}"
            )
        self.level.unpack(body[len(body) - size :], now_ms)
        self._known = {}
        at = _HEAD.size
        for _ in range(holders):
            length, shard, heard_ms, *answered, grants = _HOLDER.unpack_from(body, at)
            at += _HOLDER.size
            known = self._known[body[at : at + length].decode()] = _Known(shard, heard_ms)
            known.answered = answered
            at += length
            for _ in range(grants):
                request, calls, ended, returned, start_by_ms = _GRANT.unpack_from(body, at)
                at += _GRANT.size
                grant = known.grants[request] = _Granted(calls, start_by_ms, ended, returned)
                self.level.admitted += grant.open

    def _shares(self, lane: int, now_ms: int) -> list[tuple[str, int, int]]:
        """Who gets how much now: nobody more than it asked for, and nobody less than another unless it asked for
        less. What does not divide goes around."""
        asks = [(name, *known.asks[lane]) for name, known in self._known.items() if lane in known.asks]
        level = self.level
        free = min(level.ceilings[lane] - level.admitted, level.concurrency[lane] - (level.admitted - level.ended))
        if not asks or free <= 0:
            return []
        asks.sort(key=lambda ask: ask[2])
        if free < len(asks):
            self._turn += free
            first = self._turn % len(asks)
            asks = sorted((asks[first:] + asks[:first])[:free], key=lambda ask: ask[2])
        shares = []
        for place, (name, request, calls, _) in enumerate(asks):
            part = min(calls, free // (len(asks) - place))
            free -= part
            del self._known[name].asks[lane]
            shares.append((name, request, part))
        return shares

    def _expire(self, now_ms: int) -> None:
        """Grants that nobody settled: their calls ended at the last possible moment."""
        times = self._times
        for name, known in list(self._known.items()):
            for request, grant in list(known.grants.items()):
                last_ms = grant.start_by_ms + times.call_timeout_ms
                if now_ms > last_ms:
                    self.level.ended += grant.open
                    self.level.count(grant.open, last_ms, last_ms)
                    del known.grants[request]
                    self.relaxed = True
                    self._grant_from_ms = min(self._grant_from_ms, now_ms)
            for lane, (_, _, came_ms) in list(known.asks.items()):
                if now_ms - came_ms > 2 * times.ask_again_ms:  # it would have asked again
                    del known.asks[lane]
            if not known.grants and not known.asks and now_ms - known.heard_ms > _UNSEEN_MS:
                del self._known[name]


def _shared(limits: LimitSet) -> set[tuple[str, bool]]:
    """Endpoints (those that count together joined by ``+``) that an egress has limits for, and whether on persons."""
    kinds = {kind_of(limit, endpoint) for endpoint in (*ENDPOINTS, GETTOKEN) for limit in limits.of("", endpoint)}
    return {(label, persons) for scope, label, persons in kinds if scope == "ip_api"}


def _all(corp_id: str, staff_id: str) -> int:
    """The guard has no say about an egress."""
    return 100


class Leases:
    """``SharedLevels`` of one shard: holder of every shared level it uses, owner of those whose key is its own.
    ``shard_of`` tells the shard of a level's key. Where a word goes, ``destination`` tells."""

    def __init__(
        self,
        limits: LimitSet,
        *,
        shard: int,
        incarnation: str,
        egress: str,
        shard_of: Callable[[str], int],
        corps: Collection[str],
        times: LeaseTimes | None = None,
    ) -> None:
        self._limits = limits
        self._shard = shard
        self._incarnation = incarnation
        self._egress = egress
        self._shard_of = shard_of
        self._corps = tuple(corps)
        self._reachable = Reachable(limits, corps)
        self._times = times or LeaseTimes()
        self._holders: dict[str, Holder] = {}
        self._owners: dict[str, Owner] = {}
        self._written_ms = 0

    def destination(self, lease: QuotaLease) -> int:
        """The partition of ``quota.leases`` a word is written to."""
        return lease.shard if lease.kind == "grant" else self._shard_of(lease.level)

    def take(self, level: str, lane: int, units: int, now_ms: int) -> int:
        holder = self._holders.get(level)
        if holder is None:
            headroom = [self._limits.headroom[name] for name in LANES]
            holder = self._holders[level] = Holder(level, self._shard, self._incarnation, headroom, self._times)
        return holder.take(lane, units, now_ms)

    def start_by_ms(self, level: str) -> int:
        return self._holders[level].start_by_ms

    def finish(self, level: str, units: int, now_ms: int) -> None:
        self._holders[level].finish(units)

    def give_back(self, level: str, units: int, now_ms: int) -> None:
        self._holders[level].give_back(units)

    def receive(self, lease: QuotaLease, now_ms: int) -> None:
        if lease.kind == "grant":
            holder = self._holders.get(lease.level)
            if holder is not None:
                holder.receive(lease, now_ms)
        elif self._shard_of(lease.level) == self._shard:
            owner = self._owner(lease.level)
            if owner is not None:
                owner.receive(lease, now_ms)

    def outgoing(self, now_ms: int) -> list[QuotaLease]:
        words = []
        for holder in self._holders.values():
            for word in holder.outgoing(now_ms):
                if self._shard_of(word.level) == self._shard:
                    self.receive(word, now_ms)
                else:
                    words.append(word)
        for owner in self._owners.values():
            for word in owner.outgoing(now_ms):
                if word.holder == self._incarnation:
                    # Visible at once, durable in time: its calls start after the transaction that holds the grant.
                    self.receive(word, now_ms)
                elif word.shard != self._shard:
                    words.append(word)
        return words

    def give_up(self) -> None:
        """This shard is another's soon: what it was granted and has not used goes back to the owners."""
        for holder in self._holders.values():
            holder.give_up()

    def change(self, limits: LimitSet, now_ms: int) -> None:
        before, self._limits = self._limits, limits
        shared = [
            (label, persons, self._reachable.counted(label, persons, now_ms)) for label, persons in _shared(limits)
        ]
        self._reachable.change(limits, now_ms)
        for owner in self._owners.values():
            rules = self._rules(owner.level.key)
            if rules is not None:
                owner.change(rules)
        for label, persons, counted in shared:
            key = f"ip_api|{self._egress}|{label}{PERSONS if persons else ''}"
            if not counted and self._shard_of(key) == self._shard and self._reachable.counted(label, persons, now_ms):
                self._begin_counting(key, before, label, persons, now_ms)

    def take_dirty(self, now_ms: int, worst_end_ms: int) -> list[DirtyLevel]:
        relaxed = now_ms - self._written_ms >= self._times.ask_again_ms
        dirty = []
        for key, owner in self._owners.items():
            if owner.urgent or (owner.relaxed and relaxed):
                owner.urgent = owner.relaxed = False
                self._written_ms = now_ms
                level = owner.level
                view = view_json(level, now_ms, _all)
                dirty.append(DirtyLevel(key, "", level.rules.endpoint, owner.pack(now_ms), view))
        return dirty

    def restore(self, level: str, state: bytes, now_ms: int) -> None:
        owner = self._owner(level)
        if owner is not None:
            owner.unpack(state, now_ms)

    def mistrust(self, level: str, until_ms: int) -> None:
        owner = self._owner(level)
        if owner is not None:
            owner.level.adapt().frozen_until_ms = until_ms
            owner.level.valid_until = 0
            owner.urgent = True

    def usage(self, now_ms: int) -> list[LevelView]:
        return [view_of(owner.level, now_ms, _all) for owner in self._owners.values()]

    def due_ms(self) -> int:
        due = min((holder.due_ms() for holder in self._holders.values()), default=NEVER)
        for owner in self._owners.values():
            due = min(due, owner.due_ms())
            if owner.urgent:
                due = 0
            elif owner.relaxed:
                due = min(due, self._written_ms + self._times.ask_again_ms)
        return due

    def _begin_counting(self, key: str, before: LimitSet, label: str, persons: bool, now_ms: int) -> None:
        """A level that could not bind so far may bind from now on, and nobody counted it: all that the corps' limits
        allowed until now counts as used, of each window as much as may have been made in it."""
        owner = self._owner(key)
        if owner is None:
            return
        known, younger_ms = 0, 0
        limits = [limit for limit in owner.level.rules.limits if isinstance(limit.window, Sliding)]
        for limit in sorted(limits, key=lambda limit: window_order(limit.window)):
            most = most_used(before, self._corps, limit, label, persons)
            units = limit.amount if most is None else most
            if units > known:
                owner.assume(units - known, younger_ms, now_ms)
                known = units
            younger_ms = window_order(limit.window)

    def _owner(self, key: str) -> Owner | None:
        """None when nothing of today limits the level."""
        owner = self._owners.get(key)
        if owner is None:
            rules = self._rules(key)
            if rules is not None:
                owner = self._owners[key] = Owner(key, rules, self._times)
        return owner

    def _rules(self, key: str) -> Rules | None:
        scope, _, label, persons = split_key(key)
        return rules_of(self._limits, scope, "", label, persons)
