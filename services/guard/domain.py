"""One account: its facts, what people said about it, and how far it is trusted.

* **Signs** (signals and counts) are facts. A repeat changes nothing, and the account is judged from all facts in the
  order of business time, so the order of arrival does not matter – as far back as the account remembers (``MEMORY_MS``
  or ``MOST_FACTS``). A sign from before that still blocks, as if it had come at the edge of the memory; its points are
  lost.
* **Words** of people (stop, request, approve or reject a lift) are decided when they arrive: the order in the log is
  the order people acted in. An approved lift is a fact too, and covers what had arrived before it, nothing else.

Nothing here knows a clock. ``now_ms`` is business time, as far as the caller knows it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import msgspec

from services.guard import counts
from services.guard.ladder import (
    DELETIONS,
    LIFTED,
    RISK,
    STOP,
    Fact,
    Standing,
    Verdict,
    blocks,
    fold,
    next_change_ms,
    risk,
    verdict,
)
from siyu.events import GuardAudit, GuardSignal, GuardState, StaffDelta
from siyu.events.business_time import iso_utc
from siyu.events.ids import stable_id, staff_key
from siyu.guard.rules import (
    ACCOUNT_CREATED,
    ACTIVE_ADDS,
    CAMPAIGN_PREFIX,
    MANUAL_KINDS,
    STAFF_TOUCH,
    TOUCH,
    Level,
    RuleBook,
    campaign_member,
    level_of,
)

GUARD = "guard"
"""Author of what the rules decide, and source of what the guard tells."""
MEMORY_MS = 60 * 86_400_000
MOST_FACTS = 200
_MOST_RECENT = 64
_LAST_TIME_MS = 253_402_272_000_000
_LONGEST_ID, _LONGEST_TEXT = 64, 1000

Result = Literal[
    "applied",  # it counts
    "duplicate",  # it was known, or says no more than what was
    "too_late",  # from before what the account remembers
    "refused",  # a person's word that changes nothing
    "without_effect",  # nothing in it that the guard looks at
]


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lift that waits for its second person."""

    id: str
    author: str
    reason: str
    at_ms: int
    seq: int


class Account(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State of one key. Never mutated: a changed part is a new object."""

    now_ms: int = 0
    """The newest business time known."""
    born_ms: int = 0
    """Since when the account is known to be there."""
    seq: int = 0
    """Arrivals so far."""
    base: Standing = Standing()
    """What the facts came to that are no longer kept."""
    horizon_ms: int = 0
    """Facts up to there are in ``base``."""
    facts: tuple[Fact, ...] = ()
    """By time and id."""
    recent: tuple[str, ...] = ()
    """Ids of words, and of what blocked and is in ``base``: a repeat is known by them."""
    request: Request | None = None
    hours: dict[int, counts.Hour] = {}
    velocity: dict[str, dict[int, int]] = {}
    cells: dict[int, tuple[int, int]] = {}
    campaigns: dict[int, dict[int, tuple[int, ...]]] = {}
    published: Verdict = Verdict()
    published_request: str = ""
    revision: int = 0
    audits: int = 0
    review_ms: int = 0
    """When to look again although nothing happens; 0: never."""


@dataclass(slots=True)
class Turn:
    """What one input or timer came to."""

    account: Account
    result: Result = "applied"
    state: GuardState | None = None
    audits: list[GuardAudit] = field(default_factory=list)
    tells: list[GuardSignal] = field(default_factory=list)


def apply_delta(account: Account | None, delta: StaffDelta, book: RuleBook, now_ms: int = 0) -> Turn:
    """New friends and losses of a staff member's day. Raises ValueError, without its data, for one that is wrong."""
    known = account or Account()
    adds, lost = delta.counters.get("adds", 0), delta.counters.get("lost_by_customer", 0)
    if not delta.staff_id or not (adds or lost):
        return Turn(known, "without_effect")
    at = _time(delta.event_time_ms)
    try:
        day = date.fromisoformat(delta.day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        raise ValueError("delta of something that is not a day") from None
    work = _Work(known, delta.corp_id, delta.staff_id, book, at, now_ms, delta.caused_by)
    if adds > 0 and day == counts.day_of(at):  # else it corrects an older day, and says nothing about a pace
        work.pace("adds", adds, at)
    work.hour(counts.hour_of(at, day), adds, lost, at)
    return work.done()


def apply_signal(account: Account | None, signal: GuardSignal, book: RuleBook, now_ms: int = 0) -> Turn:
    """One signal or word. Raises ValueError, without its data, for one that is wrong or of another level."""
    known = account or Account()
    at = _time(signal.event_time_ms)
    _check(signal)
    if signal.kind in MANUAL_KINDS:
        work = _Work(known, signal.corp_id, signal.staff_id, book, at, now_ms)
        work.word(signal)
        return work.done()
    work = _Work(known, signal.corp_id, signal.staff_id, book, at, now_ms, signal.signal_id)
    if signal.kind in (TOUCH, ACTIVE_ADDS, ACCOUNT_CREATED):
        work.happened(signal)
    elif signal.kind == STAFF_TOUCH:
        work.wrote(signal)
    else:
        work.sign(signal)
    return work.done()


def review(account: Account, corp_id: str, member: str, book: RuleBook, now_ms: int) -> Turn:
    """Looks again at how the account stands at ``now_ms``."""
    return _Work(account, corp_id, member, book, max(account.now_ms, now_ms), now_ms).done()


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's: width, case and spaces at the ends do not tell people apart."""
    return _person(one) == _person(other)


def _person(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _time(event_time_ms: int) -> int:
    if not 0 < event_time_ms < _LAST_TIME_MS:
        raise ValueError("event time out of range")
    return event_time_ms


def _check(signal: GuardSignal) -> None:
    if not 0 < len(signal.signal_id) <= _LONGEST_ID:
        raise ValueError("signal without an id, or with one that is too long")
    if signal.count < 1:
        raise ValueError("signal with a count below 1")
    if signal.staff_id == CAMPAIGN_PREFIX:
        raise ValueError("signal about a campaign without a name")
    if max(len(signal.reason), len(signal.author), len(signal.campaign_id)) > _LONGEST_TEXT:
        raise ValueError("signal with a text that is too long")


def _number(text: str, bits: int = 63) -> int:
    return int(stable_id(text)[:16], 16) >> (64 - bits)


class _Work:
    """One turn: the account as it changes, and what leaves."""

    def __init__(
        self, account: Account, corp_id: str, member: str, book: RuleBook, at_ms: int, now_ms: int, cause: str = ""
    ) -> None:
        """``cause``: id of the signal or event that everything this turn decides is due to."""
        self._book = book
        self._corp_id = corp_id
        self._member = member
        self._key = staff_key(corp_id, member)
        self._level: Level = level_of(member)
        self._at = at_ms
        self._before = account
        now = max(account.now_ms, at_ms, now_ms)
        born = min(account.born_ms or at_ms, at_ms)
        self._turn = Turn(msgspec.structs.replace(account, now_ms=now, born_ms=born, seq=account.seq + 1))
        self._author, self._second, self._said, self._cause = GUARD, "", "", cause
        self._done_by_word = ""

    @property
    def _account(self) -> Account:
        return self._turn.account

    def _set(self, **changes: object) -> None:
        self._turn.account = msgspec.structs.replace(self._turn.account, **changes)

    def _standing(self) -> Standing:
        account = self._account
        return fold(account.base, account.facts, self._book, self._level, account.born_ms)

    # -- counts ---------------------------------------------------------------------------------------------------

    def pace(self, of: str, count: int, at: int) -> None:
        """People added or written to within a short time."""
        account = self._account
        velocity, facts = counts.with_pace(account.velocity, of, count, at, account.now_ms, self._book.at(at))
        self._set(velocity=velocity)
        for fact in facts:
            self._derived(fact)

    def hour(self, hour: int, touched: int, lost: int, at: int) -> None:
        """People touched and lost in an hour."""
        rules = self._book.at(at)
        hours = counts.with_hour(self._account.hours, hour, touched, lost, rules)
        if hours is self._account.hours:
            self._turn.result = "too_late"
            return
        self._set(hours=hours)
        for fact in counts.deletions(hours, hour, rules):
            self._derived(fact)

    def happened(self, signal: GuardSignal) -> None:
        """A touch, a reported add, or the age of the account."""
        if self._level != "staff":
            raise ValueError("signal of a kind that belongs to a staff member")
        if signal.kind == ACCOUNT_CREATED:
            return  # its time is the account's birth, which the turn has taken already
        account, at = self._account, self._at
        cells, grown = counts.with_cell(
            account.cells,
            _number(signal.signal_id),
            at,
            signal.count,
            account.now_ms,
            self._book.at(at).rules.late_ms,
        )
        if not grown:
            late = at // counts.MINUTE_MS < (account.now_ms - self._book.at(at).rules.late_ms) // counts.MINUTE_MS
            self._turn.result = "too_late" if late else "duplicate"
            return
        first = _number(signal.signal_id) not in account.cells
        self._set(cells=cells)
        if signal.kind == ACTIVE_ADDS:
            self.pace("active_adds", grown, at)
            return
        self.pace("touches", grown, at)
        self.hour(counts.hour_of(at, counts.day_of(at)), grown, 0, at)
        if first and signal.campaign_id:
            self._tell(STAFF_TOUCH, "", signal, source=f"{GUARD}:{self._member}")

    def wrote(self, signal: GuardSignal) -> None:
        """One of the corp's staff wrote for a campaign."""
        if self._level != "corp" or not signal.campaign_id:
            raise ValueError("signal of a kind that belongs to a corp, with a campaign")
        account = self._account
        campaigns, facts = counts.with_writer(
            account.campaigns,
            _number(signal.campaign_id),
            _number(signal.source, 32),
            self._at,
            account.now_ms,
            self._book.at(self._at),
        )
        if campaigns is account.campaigns:
            self._turn.result = "duplicate"
            return
        self._set(campaigns=campaigns)
        for fact in facts:
            self._derived(fact)

    def _derived(self, fact: Fact) -> None:
        """A fact that follows from counts: the newest form of it counts, at the earliest time it holds."""
        facts = self._account.facts
        known = next((f for f in facts if f.id == fact.id), None)
        if fact.time_ms <= self._account.horizon_ms:
            return
        if known is not None:
            time_ms, count = min(known.time_ms, fact.time_ms), fact.count
            if fact.kind != DELETIONS:
                count = max(known.count, count)
            if (time_ms, count) == (known.time_ms, known.count):
                return
            facts = tuple(f for f in facts if f is not known)
            fact = msgspec.structs.replace(known, time_ms=time_ms, count=count)
        elif not fact.count:
            return
        else:
            fact = msgspec.structs.replace(fact, seq=self._account.seq)
        self._set(facts=tuple(sorted((*facts, fact))) if fact.count else facts)

    # -- signs ----------------------------------------------------------------------------------------------------

    def sign(self, signal: GuardSignal) -> None:
        """Something that says the account is at risk."""
        account, at = self._account, self._at
        rules = self._book.at(at)
        rule = rules.signals.get((signal.kind, self._level))
        if rule is None:
            raise ValueError("signal of a kind that nobody knows at this level")
        if signal.signal_id in account.recent or any(fact.id == signal.signal_id for fact in account.facts):
            self._turn.result = "duplicate"
            return
        if at <= account.horizon_ms:
            if not blocks(signal.kind, self._level, rules):
                self._turn.result = "too_late"
                return
            at = account.horizon_ms
        fact = Fact(at, signal.signal_id, signal.kind, signal.count, account.seq)
        self._set(facts=tuple(sorted((*account.facts, fact))))
        if rule.tells_corp:
            self._tell(rule.tells_corp, "", signal)
        if rule.tells_campaign and signal.campaign_id:
            self._tell(rule.tells_campaign, campaign_member(signal.campaign_id), signal)

    def _tell(self, kind: str, member: str, cause: GuardSignal, source: str = GUARD) -> None:
        """To the corp or the campaign; told twice it is the same signal."""
        self._turn.tells.append(
            msgspec.structs.replace(
                cause,
                signal_id=stable_id("tells", kind, self._key, cause.signal_id),
                staff_id=member,
                kind=kind,
                source=source,
            )
        )

    # -- words ----------------------------------------------------------------------------------------------------

    def word(self, signal: GuardSignal) -> None:
        """What a person says."""
        account = self._account
        if signal.signal_id in account.recent:
            self._turn.result = "duplicate"
            return
        self._judge()  # what time alone has changed is not this person's doing
        self._set(recent=(*account.recent, signal.signal_id)[-_MOST_RECENT:])
        self._cause, self._author, self._said = signal.signal_id, signal.author.strip(), signal.reason.strip()
        refusal = self._decide(signal)
        if refusal:
            self._turn.result = "refused"
            self._audit("stop_refused" if signal.kind == STOP else "lift_refused", reason=refusal)

    def _decide(self, signal: GuardSignal) -> str:
        """Why it changes nothing, from a closed set; empty: it was done."""
        account, now = self._account, self._account.now_ms
        if not _person(signal.author):
            return "no_author"
        if not self._said and signal.kind != "lift_approve":
            return "no_reason"
        if signal.kind == STOP:
            self._fact(STOP, signal.signal_id)
            self._done_by_word = "stopped"
            return ""
        standing, request = self._standing(), account.request
        if signal.kind == "lift_request":
            if not standing.blocked(now):
                return "nothing_to_lift"
            self._set(request=Request(signal.signal_id, self._author, self._said, now, account.seq))
            self._audit("lift_requested")
            return ""
        if request is None:
            return "nothing_requested"
        if signal.action_id and signal.action_id != request.id:
            return "another_request"
        if signal.kind == "lift_reject":
            self._set(request=None)
            self._second, self._author = self._author, request.author
            self._audit("lift_rejected")
            return ""
        if same_person(signal.author, request.author):
            return "same_person"
        valid_ms = self._book.at(now).rules.lift.request_valid_ms
        if now - request.at_ms > valid_ms or standing.seen_seq > request.seq:
            return "outdated"
        if not standing.blocked(now):
            return "nothing_to_lift"
        self._second, self._author, self._said = self._author, request.author, request.reason
        self._set(request=None)
        self._fact(LIFTED, signal.signal_id)
        self._done_by_word = "lift_approved"
        return ""

    def _fact(self, kind: str, fact_id: str) -> None:
        """A person's word takes effect now and after all that is known, whatever their clock says."""
        account = self._account
        newest_ms = account.facts[-1].time_ms if account.facts else account.horizon_ms
        at = max(account.now_ms, newest_ms + 1)
        self._set(now_ms=at, facts=(*account.facts, Fact(at, fact_id, kind, 1, account.seq)))

    # -- the end of a turn ----------------------------------------------------------------------------------------

    def done(self) -> Turn:
        """Judges the account, forgets what is old, and says what has changed."""
        turn = self._turn
        if turn.result == "duplicate":
            return Turn(self._before, "duplicate")
        self._forget()
        standing = self._judge()
        account, book = self._account, self._book
        next_ms = next_change_ms(standing, account.published, account.now_ms, book)
        if account.request is not None:
            expires_ms = account.request.at_ms + book.at(account.now_ms).rules.lift.request_valid_ms + 1
            next_ms = min(next_ms, expires_ms) if next_ms else expires_ms
        self._set(review_ms=next_ms)
        return turn

    def _judge(self) -> Standing:
        """Says how the account stands, if that has changed."""
        account, book = self._account, self._book
        standing, now = self._standing(), account.now_ms
        request = account.request
        if request is not None and (
            now - request.at_ms > book.at(now).rules.lift.request_valid_ms or not standing.blocked(now)
        ):
            request = None
            self._set(request=None)
            self._audit("lift_expired")
        seen = verdict(standing, now, book, self._level)
        requested_by = "" if request is None else request.author
        before = account.published
        if seen != before or requested_by != account.published_request:
            self._publish(seen, requested_by, standing)
        if seen != before or self._done_by_word:
            self._audit(self._done_by_word or _what(before, seen), before=before, after=seen)
            new_cool_down = seen.standing in ("cooling", "stopped") and before.standing in ("clear", "watched")
            if new_cool_down and self._level == "staff" and seen.reason == RISK:
                self._cooled(standing)
        return standing

    def _forget(self) -> None:
        """What is old goes into ``base``; facts that block are remembered by their id."""
        account = self._account
        most = len(account.facts) - MOST_FACTS
        oldest_ms = account.now_ms - MEMORY_MS
        old = sum(1 for n, fact in enumerate(account.facts) if n < most or fact.time_ms <= oldest_ms)
        if not old:
            return
        gone = account.facts[:old]
        blocking = [f.id for f in gone if blocks(f.kind, self._level, self._book.at(f.time_ms))]
        self._set(
            base=fold(account.base, gone, self._book, self._level, account.born_ms),
            horizon_ms=max(account.horizon_ms, gone[-1].time_ms),
            facts=account.facts[old:],
            recent=(*account.recent, *blocking)[-_MOST_RECENT:],
        )

    def _publish(self, seen: Verdict, requested_by: str, standing: Standing) -> None:
        account = self._account
        revision = account.revision + 1
        self._set(revision=revision, published=seen, published_request=requested_by)
        points = risk(standing, account.now_ms, self._book, self._level)
        self._turn.state = GuardState(
            corp_id=self._corp_id,
            staff_id=self._member,
            standing=seen.standing,
            step=seen.step,
            until_ms=seen.until_ms,
            allowance_percent=seen.allowance_percent,
            risk_milli=round(1000 * sum(points.values())),
            reason=seen.reason,
            lift_requested_by=requested_by,
            revision=revision,
            updated_ms=account.now_ms,
        )

    def _cooled(self, standing: Standing) -> None:
        """The score of a staff member has tripped: a sign for the corp, once a cool-down."""
        self._turn.tells.append(
            GuardSignal(
                signal_id=stable_id("cooled", self._key, counts.day_of(standing.since_ms)),
                corp_id=self._corp_id,
                staff_id="",
                kind="staff_cooled",
                count=1,
                campaign_id="",
                action_id="",
                errcode=0,
                source=GUARD,
                author="",
                reason="",
                event_time_ms=standing.since_ms,
                written_at_ms=0,
            )
        )

    def _audit(
        self, what: str, *, reason: str = "", before: Verdict | None = None, after: Verdict | None = None
    ) -> None:
        account = self._account
        now_as_is = account.published
        self._set(audits=account.audits + 1)
        self._turn.audits.append(
            GuardAudit(
                audit_id=stable_id("guard_audit", self._key, account.audits + 1),
                corp_id=self._corp_id,
                staff_id=self._member,
                what=what,
                author=self._author,
                second_author=self._second,
                reason=reason or self._said or (after.reason if after else ""),
                before=in_words(before or now_as_is),
                after=in_words(after or now_as_is),
                signal_id=self._cause,
                at_ms=account.now_ms,
            )
        )


def _what(before: Verdict, after: Verdict) -> str:
    """Name of a change, from a closed set."""
    if after.standing != before.standing:
        return {"clear": "cleared", "watched": "watched", "cooling": "cooled", "stopped": "stopped"}[after.standing]
    return "prolonged" if after.until_ms != before.until_ms else "adjusted"


def in_words(seen: Verdict) -> str:
    """``cooling, step 1, until 2026-11-21T00:00:00.000Z, allowance 0 %, ban``."""
    parts = [
        seen.standing,
        f"step {seen.step}" if seen.step else "",
        f"until {iso_utc(seen.until_ms)}" if seen.until_ms else "",
        f"allowance {seen.allowance_percent} %",
        seen.reason,
    ]
    return ", ".join(part for part in parts if part)
