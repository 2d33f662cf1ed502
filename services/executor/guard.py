"""What an executor knows of the ban guard: who may go on, how fast, and what has to be told.

Two objects, both pure: time comes in as business time, epoch ms.

* :class:`GuardTable`, one a process: the newest ``guard.state`` of every staff member, corp and campaign. The last
  gate asks it before a call starts (``blocks``), the governor before it admits (``allowance``).
* :class:`Breaker`, one a shard: sees every answer. It rests an API of a corp, or a staff member, as soon as calls
  fail, holds an account at once when an answer says that it is banned, and makes the signals the guard decides by. The
  guard's word takes a moment; until it is there, what this process knows holds, ``breaker.hold_ms`` at most.

Whoever is not known is trusted: no record means no sign of risk was ever seen. A record that cannot be read changes
nothing, so the last good one stays in force.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from siyu.events import GuardSignal, GuardState, Lane, codec
from siyu.events.ids import stable_id, staff_key
from siyu.guard.rules import TOUCH, BreakerRule, ErrcodeRule, Level, RuleBook, campaign_member, level_of
from siyu.wecom.endpoints import ENDPOINTS

Blocked = Literal["corp_stopped", "corp_cooling", "campaign_stopped", "staff_stopped", "staff_cooling"]
"""Detail of an outcome ``blocked`` that the guard causes."""

SOURCE = "executor"
_MINUTE_MS = 60_000
_BUCKETS = 6
_Standing = Literal["free", "cooling", "stopped"]
_Account = tuple[str, str]
"""(corp id, staff id or campaign member or empty)."""


@dataclass(slots=True)
class _Hold:
    """What this process has seen and the guard may not have said yet."""

    standing: Literal["cooling", "stopped"]
    since_ms: int
    until_ms: int


class GuardTable:
    """The newest word of the guard about every account; one a process."""

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules
        self._states: dict[_Account, GuardState] = {}
        self._holds: dict[_Account, _Hold] = {}

    def __len__(self) -> int:
        return len(self._states)

    def apply(self, key: bytes, value: bytes | None) -> bool:
        """One record of ``guard.state``; an older revision than the known one changes nothing.

        False: it could not be read, or its key is another account's; nothing changed.
        """
        try:
            corp_id, _, member = key.decode().partition("|")
            if value is None:
                self._states.pop((corp_id, member), None)
                return True
            state = codec().decode_as(GuardState, value)
        except ValueError:
            return False
        if staff_key(state.corp_id, state.staff_id) != f"{corp_id}|{member}":
            return False
        known = self._states.get((corp_id, member))
        # Reading the topic again from its beginning must not set anybody free for a moment.
        if known is None or state.revision >= known.revision or state.updated_ms > known.updated_ms:
            self._states[corp_id, member] = state
            hold = self._holds.get((corp_id, member))
            if hold is not None and state.updated_ms >= hold.since_ms:
                del self._holds[corp_id, member]
        return True

    def allowance(self, corp_id: str, staff_id: str, now_ms: int) -> int:
        """Percent of the limits of ours that the account may use: the smaller of corp and staff member.

        0 while either cools or is stopped. A cool-down is over at its ``until_ms`` even when no record says so; until
        one does, the rules' ``after_cooling_percent`` counts.
        """
        corp = self._percent((corp_id, ""), now_ms)
        return min(corp, self._percent((corp_id, staff_id), now_ms)) if staff_id else corp

    def blocks(
        self, corp_id: str, staff_id: str, campaign_id: str, endpoint: str, lane: Lane, now_ms: int
    ) -> Blocked | None:
        """Why a call must not start, or None. ``lane`` makes no difference, on purpose: a welcome is a message too.

        * A stopped corp makes no call at all.
        * In a cooling corp, and for a cooling or stopped staff member or campaign, reads go on: they touch nobody, and
          results have to be known. So do the rules' ``always_allowed`` endpoints, which take things back.
        """
        corp = self._standing((corp_id, ""), now_ms)
        if corp == "stopped":
            return "corp_stopped"
        known = ENDPOINTS.get(endpoint)
        if known is not None and known.repeat == "read":
            return None
        if endpoint in self._rules.at(now_ms).rules.always_allowed:
            return None
        if campaign_id and self._standing((corp_id, campaign_member(campaign_id)), now_ms) != "free":
            return "campaign_stopped"
        if corp == "cooling":
            return "corp_cooling"
        staff = self._standing((corp_id, staff_id), now_ms) if staff_id else "free"
        if staff == "stopped":
            return "staff_stopped"
        return "staff_cooling" if staff == "cooling" else None

    def hold(
        self, corp_id: str, member: str, standing: Literal["cooling", "stopped"], now_ms: int, until_ms: int
    ) -> None:
        """Blocks an account in this process until a record of ``now_ms`` or later is applied, or ``until_ms``."""
        known = self._holds.get((corp_id, member))
        stopped = standing == "stopped" or (known is not None and known.standing == "stopped")
        self._holds[corp_id, member] = _Hold("stopped" if stopped else "cooling", now_ms, until_ms)

    def forget_holds(self, now_ms: int) -> None:
        """Drops holds that are over."""
        self._holds = {account: hold for account, hold in self._holds.items() if hold.until_ms > now_ms}

    def _standing(self, account: _Account, now_ms: int) -> _Standing:
        state = self._states.get(account)
        standing: _Standing = "free"
        if state is not None:
            if state.standing == "stopped":
                return "stopped"
            if state.standing == "cooling" and now_ms < state.until_ms:
                standing = "cooling"
        if self._holds:
            hold = self._holds.get(account)
            if hold is not None and now_ms < hold.until_ms:
                return hold.standing
        return standing

    def _percent(self, account: _Account, now_ms: int) -> int:
        if self._standing(account, now_ms) != "free":
            return 0
        state = self._states.get(account)
        if state is None:
            return 100
        if state.standing == "cooling":
            return self._rules.at(now_ms).rules.score.after_cooling_percent
        return min(100, max(0, state.allowance_percent))


@dataclass(slots=True)
class _Circuit:
    """Calls of one corp × API or one staff member in the window, and whether it rests."""

    buckets: dict[int, list[int]] = field(default_factory=dict)
    """Sixth of the window → [calls, failures]."""
    open_until_ms: int = 0
    rest_ms: int = 0
    """Length of the last rest; 0: closed."""
    trial_until_ms: int = 0
    """While half-open: no second call before then, unless the first was answered."""
    last_ms: int = 0


class Breaker:
    """Sees every answer of one shard."""

    def __init__(self, rules: RuleBook, table: GuardTable, *, shard: int, incarnation: str) -> None:
        """``incarnation`` tells this ownership of the shard from others (the producer epoch): what two owners counted
        in the same minute adds up, while one owner's signal sent twice counts once."""
        self._rules = rules
        self._table = table
        self._shard = shard
        self._incarnation = incarnation
        self._apis: dict[tuple[str, str], _Circuit] = {}
        self._staff: dict[tuple[str, str], _Circuit] = {}
        # By minute first: whether anything is due is asked with every cycle of the shard.
        self._touches: dict[int, dict[tuple[str, str, str], int]] = {}
        self._failures: dict[int, dict[tuple[str, str, str, int], int]] = {}
        self._told: dict[str, int] = {}
        """Signal id → minute: one at-once signal a minute and account."""

    # -- resting --------------------------------------------------------------------------------------------------

    def open_until(self, corp_id: str, endpoint: str, staff_id: str, now_ms: int) -> int:
        """0: a call may start. Else the business time at which asking again makes sense. Changes nothing."""
        until_ms = 0
        for circuit in (self._apis.get((corp_id, endpoint)), self._staff.get((corp_id, staff_id))):
            if circuit is not None and circuit.rest_ms:
                until_ms = max(until_ms, circuit.open_until_ms, circuit.trial_until_ms)
        return until_ms if until_ms > now_ms else 0

    def trying(self, corp_id: str, endpoint: str, staff_id: str, now_ms: int) -> None:
        """A call starts. After a rest it is the only one until it is answered, or as long as the rest was."""
        for circuit in (self._apis.get((corp_id, endpoint)), self._staff.get((corp_id, staff_id))):
            if circuit is not None and circuit.rest_ms and circuit.open_until_ms <= now_ms:
                circuit.trial_until_ms = now_ms + circuit.rest_ms

    def record(
        self,
        corp_id: str,
        endpoint: str,
        staff_id: str,
        errcode: int | None,
        now_ms: int,
        *,
        campaign_id: str = "",
        action_id: str = "",
        wall_ms: int = 0,
    ) -> list[GuardSignal]:
        """One answer (None: there was none). Returns the signals to send at once, in the next transaction.

        Rests and holds take effect before it returns. ``wall_ms`` is only what the signals say as written_at_ms.
        """
        rules = self._rules.at(now_ms)
        breaker = rules.rules.breaker
        unanswered = errcode is None and breaker.no_answer_counts
        api_failed = unanswered or (errcode is not None and errcode in breaker.counts_corp_api)
        staff_failed = errcode is not None and errcode in breaker.counts_staff
        self._count(self._apis, (corp_id, endpoint), api_failed, breaker.corp_api, now_ms)
        if staff_id:
            self._count(self._staff, (corp_id, staff_id), staff_failed, breaker.staff, now_ms)
        sign = rules.errcodes.get(errcode) if errcode is not None else None
        if sign is None:
            return []
        member = staff_id if sign.at == "staff" else ""
        if sign.opens_ms:
            circuit = self._apis.setdefault((corp_id, endpoint), _Circuit())
            circuit.open_until_ms = max(circuit.open_until_ms, now_ms + sign.opens_ms)
            circuit.rest_ms = max(circuit.rest_ms, sign.opens_ms)
            circuit.last_ms = now_ms
        if sign.at == "staff" and not staff_id and not sign.without_staff:
            return []
        assert errcode is not None
        minute = now_ms // _MINUTE_MS
        if sign.tell == "by_minute":
            failures = self._failures.setdefault(minute, {})
            cell = (corp_id, member, sign.kind, errcode)
            failures[cell] = failures.get(cell, 0) + 1
            return []
        self._hold(corp_id, member, campaign_id, sign, now_ms)
        # No shard in it: what several shards see of one account in a minute is one sign.
        signal_id = stable_id("guard", sign.kind, corp_id, member, campaign_id, errcode, minute)
        if signal_id in self._told:
            return []
        self._told = {known: told for known, told in self._told.items() if told >= minute - 1} | {signal_id: minute}
        return [
            GuardSignal(
                signal_id=signal_id,
                corp_id=corp_id,
                staff_id=member,
                kind=sign.kind,
                count=1,
                campaign_id=campaign_id,
                action_id=action_id,
                errcode=errcode,
                source=SOURCE,
                author="",
                reason="",
                event_time_ms=now_ms,
                written_at_ms=wall_ms,
            )
        ]

    def _hold(self, corp_id: str, member: str, campaign_id: str, sign: ErrcodeRule, now_ms: int) -> None:
        rules = self._rules.at(now_ms)
        level: Level = level_of(member)
        effect = rules.signals[sign.kind, level]
        until_ms = now_ms + rules.rules.breaker.hold_ms
        if effect.effect in ("ladder", "pause", "stop"):
            standing: Literal["cooling", "stopped"] = "stopped" if effect.effect == "stop" else "cooling"
            self._table.hold(corp_id, member, standing, now_ms, until_ms)
        if campaign_id and effect.tells_campaign:
            told = rules.signals[effect.tells_campaign, "campaign"]
            if told.effect != "points":
                self._table.hold(corp_id, campaign_member(campaign_id), "stopped", now_ms, until_ms)

    @staticmethod
    def _count(
        circuits: dict[tuple[str, str], _Circuit], key: tuple[str, str], failed: bool, rule: BreakerRule, now_ms: int
    ) -> None:
        circuit = circuits.get(key)
        if circuit is None:
            if not failed:
                return  # nothing is kept of those who never failed
            circuit = circuits[key] = _Circuit()
        circuit.last_ms = max(circuit.last_ms, now_ms)
        if circuit.rest_ms:
            if now_ms < circuit.open_until_ms:
                return  # an answer to a call that started before the rest
            circuit.trial_until_ms = 0
            if failed:
                circuit.rest_ms = min(rule.longest_ms, max(rule.open_ms, 2 * circuit.rest_ms))
                circuit.open_until_ms = now_ms + circuit.rest_ms
            else:
                del circuits[key]
            return
        size = max(1, rule.window_ms // _BUCKETS)
        bucket = now_ms // size
        counts = circuit.buckets.setdefault(bucket, [0, 0])
        counts[0] += 1
        counts[1] += failed
        for old in [b for b in circuit.buckets if b <= bucket - _BUCKETS]:
            del circuit.buckets[old]
        calls = sum(c for c, _ in circuit.buckets.values())
        failures = sum(f for _, f in circuit.buckets.values())
        if not failures:
            del circuits[key]
        elif calls >= rule.calls and 100 * failures >= rule.failure_percent * calls:
            circuit.buckets.clear()
            circuit.rest_ms = rule.open_ms
            circuit.open_until_ms = now_ms + rule.open_ms

    # -- telling --------------------------------------------------------------------------------------------------

    def touched(self, corp_id: str, staff_id: str, campaign_id: str, persons: int, now_ms: int) -> None:
        """So many people were written to in a staff member's name (accepted). Told when the minute ends."""
        if persons > 0 and staff_id:
            touches = self._touches.setdefault(now_ms // _MINUTE_MS, {})
            cell = (corp_id, staff_id, campaign_id)
            touches[cell] = touches.get(cell, 0) + persons

    def next_due_ms(self) -> int:
        """Business time at which :meth:`due_signals` has something; 0: nothing is waiting."""
        minutes = (*self._touches, *self._failures)
        return (min(minutes) + 1) * _MINUTE_MS if minutes else 0

    def due_signals(self, now_ms: int, *, wall_ms: int = 0) -> list[GuardSignal]:
        """Touches and failures of the minutes that are over, each once, in an order that depends on nothing else.

        To be sent in the shard's next transaction. What an owner has not sent when it dies (less than two minutes) is
        lost: these are figures for a score, and what stops somebody at once never waits for a minute to end.
        """
        minute = now_ms // _MINUTE_MS
        signals = []
        for at in sorted(m for m in self._touches if m < minute):
            for (corp_id, staff_id, campaign_id), persons in sorted(self._touches.pop(at).items()):
                signals.append(self._summed(TOUCH, corp_id, staff_id, campaign_id, at, persons, 0, wall_ms))
        for at in sorted(m for m in self._failures if m < minute):
            for (corp_id, member, kind, errcode), count in sorted(self._failures.pop(at).items()):
                signals.append(self._summed(kind, corp_id, member, "", at, count, errcode, wall_ms))
        self._table.forget_holds(now_ms)
        self._sweep(now_ms)
        return signals

    def _summed(
        self,
        kind: str,
        corp_id: str,
        member: str,
        campaign_id: str,
        minute: int,
        count: int,
        errcode: int,
        wall_ms: int,
    ) -> GuardSignal:
        parts = (kind, corp_id, member, campaign_id, minute, errcode, self._shard, self._incarnation)
        return GuardSignal(
            signal_id=stable_id("guard", *parts),
            corp_id=corp_id,
            staff_id=member,
            kind=kind,
            count=count,
            campaign_id=campaign_id,
            action_id="",
            errcode=errcode,
            source=SOURCE,
            author="",
            reason="",
            event_time_ms=minute * _MINUTE_MS,
            written_at_ms=wall_ms,
        )

    def _sweep(self, now_ms: int) -> None:
        """Forgets circuits nobody has called through for longer than they could still matter."""
        breaker = self._rules.at(now_ms).rules.breaker
        for circuits, rule in ((self._apis, breaker.corp_api), (self._staff, breaker.staff)):
            for key, circuit in list(circuits.items()):
                if now_ms - max(circuit.last_ms, circuit.open_until_ms) > rule.window_ms + rule.longest_ms:
                    del circuits[key]
