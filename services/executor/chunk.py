"""One call of a large send, from its people to what became of each of them.

* A person is in the state of exactly one place of :attr:`Chunk.marks`; their outcome is published when the mark becomes
  TOLD, in the same transaction, so never twice and never not at all.
* A chunk has at most one call out at a time. One without an answer puts it in doubt: nothing more of it leaves before
  WeCom's own records have told what became of it.
* Results are read until everybody's is terminal or the horizon has passed, reminders included (fact sheet 3.4).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import msgspec

from services.executor import domain
from services.executor.domain import Again, Attempts, End, Freeze, RenewToken, SlowDown
from services.executor.governor import Claim
from services.executor.settle import Doubt, Finding, Made, NotMade, Settling, judged
from services.executor.timings import Timings
from services.executor.work import (
    MASS_SEND,
    Ask,
    Effects,
    LedgerDamaged,
    Memory,
    Surroundings,
    Verdict,
    entry_of,
    outcome_of,
)
from siyu.events import Action, ActionOutcome, ActionStatus, LedgerEntry
from siyu.events.ids import customer_key, stable_id
from siyu.events.types import LedgerState
from siyu.wecom.client import Answer, NotSent, Result, TooLarge

_EXTERNAL = "externalcontact/"
TASKS = _EXTERNAL + "get_groupmsg_task"
RESULTS = _EXTERNAL + "get_groupmsg_send_result"
REMIND = _EXTERNAL + "remind_groupmsg_send"
CANCEL = _EXTERNAL + "cancel_groupmsg_send"

OPEN, TOLD, SUPPRESSED, NOT_SENDABLE = 0, 1, 2, 3
"""Marks of people: no end yet; its outcome is published; the outcome that comes next."""

_ENDS: dict[int, End] = {
    SUPPRESSED: End("suppressed", "person_suppressed"),
    NOT_SENDABLE: End("rejected", "not_sendable"),
}
_RESULTS: dict[int, End] = {
    1: End("done", "delivered"),
    2: End("failed", "not_a_friend"),
    3: End("failed", "cap_reached"),
}
_UNCONFIRMED = End("expired", "unconfirmed")
_UNKNOWN = End("failed", "outcome_unknown")

_NOBODY_SENDABLE, _DISPATCHING, _CANCELLED, _REMINDED_OFTEN = 41048, 41063, 41093, 41094

What = Literal["call", "settle", "harvest", "remind", "cancel"]
Stage = Literal["ready", "doubt", "accepted", "closing", "ended"]


@dataclass(frozen=True)
class Plan:
    """What all chunks of a send share."""

    action: Action
    """Its payload is the content: no people, no options of ours."""
    content: dict[str, Any]
    field: Literal["external_userid", "chat_id_list"]
    sender: str
    remind_after_ms: tuple[int, ...]
    harvest_until_ms: int
    around: Surroundings

    @property
    def people(self) -> bool:
        """Customers, not groups."""
        return self.field == "external_userid"


class ChunkMemory(Memory, frozen=True, tag="chunk"):
    """What is kept of a chunk that is not over."""

    index: int
    places: list[tuple[int, int]]
    marks: bytes
    stage: Stage
    attempts: Attempts
    out: str
    left_from_ms: int
    left_until_ms: int
    closing: tuple[str, str, int] | None
    accepted_ms: int
    horizon_ms: int
    round: int
    next_round_ms: int
    reminders: list[int]
    reminded: list[int]
    cancelling: bool
    final: bool


class _Tasks(msgspec.Struct):
    task_list: list[_Task]
    next_cursor: str = ""


class _Task(msgspec.Struct):
    userid: str
    status: int


class _Rows(msgspec.Struct):
    send_list: list[_Row]
    next_cursor: str = ""


class _Row(msgspec.Struct):
    status: int
    external_userid: str = ""
    chat_id: str = ""


class _Accepted(msgspec.Struct):
    msgid: str
    fail_list: list[str] | None = None


class Chunk:
    """The machine. The send drives it, and asks it only while it has not ended."""

    def __init__(self, plan: Plan, index: int, places: list[tuple[int, int]]) -> None:
        self.plan = plan
        self.index = index
        self.id = stable_id("chunk", plan.action.action_id, index)
        self.places = places
        """Of its people in the list of the send: [from, until)."""
        self.marks = bytearray(sum(until - begin for begin, until in places))
        self.stage: Stage = "ready"
        self.changed = True
        self.attempts = Attempts()
        self.message_id = ""
        self.out: What | None = None
        self.shown = False
        self.end: End | None = None
        """The chunk's own, once published."""
        self.closing: tuple[End, int] | None = None
        """How everybody still open ends, with the errcode."""
        self._due_ms = 0
        self._left_from_ms = self._left_until_ms = 0
        self._admitted_at_ms = 0
        self._admission, self._revision = b"", ""
        self._settling: Settling | None = None
        self._accepted_ms = self._horizon_ms = 0
        # ---- the harvest: a round lists the tasks, then reads what those who have sent did
        self._round = 0
        self._next_round_ms = 0
        self._phase: Literal["", "tasks", "rows"] = ""
        self._cursor = ""
        self._queue: list[str] = []
        self._unsent = 0
        self._listed_unsent = 0
        self._listed_ms = 0
        self._left_over = False
        self._failures = 0
        self._readings: dict[str, int] = {}
        # How often whose results were read: not kept, for thousands of members would make every record large, and who
        # is read once more after a takeover costs a query.
        self._positions: dict[str, int] | None = None
        self._reminders: list[int] = []
        self._reminded: list[int] = []
        self._cancelling = False
        self._final = False

    # ---- what is to be done

    @property
    def pending(self) -> bool:
        """Outcomes of people wait to be published."""
        return self.closing is not None or SUPPRESSED in self.marks or NOT_SENDABLE in self.marks

    @property
    def unsettled(self) -> bool:
        """A message of this content may have been made, and it is not known."""
        return self.stage == "doubt"

    @property
    def unsent(self) -> bool:
        """It takes one of the places of chunks that go out at the same time."""
        return self.stage in ("ready", "doubt")

    def ask(self, now_ms: int, *, others_in_doubt: bool) -> Ask | None:
        """What should be called now."""
        if self.out is not None:
            return None
        match self.stage:
            case "ready":
                late = domain.is_late(self.plan.action, now_ms)
                if late or others_in_doubt or now_ms < self._due_ms or not self.marks.count(OPEN):
                    return None
                ask = self._ask("call", MASS_SEND, b"", self.marks.count(OPEN))
            case "doubt":
                assert self._settling is not None
                query = self._settling.query(now_ms) if now_ms <= self._settling.horizon_ms else None
                if query is None:
                    return None
                ask = self._ask("settle", query.endpoint, query.payload)
            case "accepted" if now_ms >= self._due_ms:
                found = self._next(now_ms)
                if found is None:
                    return None
                ask = found
            case _:
                return None
        self.shown = True
        return ask

    def _next(self, now_ms: int) -> Ask | None:
        """What an accepted chunk asks."""
        message = msgspec.json.encode({"msgid": self.message_id})
        rules = self.plan.around.rules()
        if self._cancelling:
            return self._ask("cancel", CANCEL, message)
        if self._reminder_ms(rules) and now_ms >= self._reminder_ms(rules):
            if now_ms - self._listed_ms <= rules.reminders.fresh_ms and self._listed_ms:
                if self._listed_unsent:
                    return self._ask("remind", REMIND, message)
                self._reminders = [at_ms for at_ms in self._reminders if at_ms > now_ms]
                self.changed = True
            elif not self._phase:
                self._next_round_ms = min(self._next_round_ms, now_ms)
        if now_ms > self._horizon_ms and not self._final:
            self._final = self.changed = True
            self._next_round_ms = min(self._next_round_ms, now_ms)
        if not self._phase and now_ms >= self._next_round_ms:
            self._phase, self._cursor, self._queue, self._unsent = "tasks", "", [], 0
        page = rules.harvest.page
        asked: dict[str, Any] = {"msgid": self.message_id, "limit": page}
        if self._cursor:
            asked["cursor"] = self._cursor
        match self._phase:
            case "tasks":
                return self._ask("harvest", TASKS, msgspec.json.encode(asked))
            case "rows":
                return self._ask("harvest", RESULTS, msgspec.json.encode(asked | {"userid": self._queue[0]}))
        return None

    def _reminder_ms(self, rules: Timings) -> int:
        """When the next reminder may go out; 0: none is left."""
        if not self._reminders or self._final:
            return 0
        recent = self._reminded[-rules.reminders.most :]
        room_ms = recent[0] + rules.reminders.within_ms + 1 if len(recent) >= rules.reminders.most else 0
        return max(self._reminders[0], room_ms)

    def _ask(self, what: What, endpoint: str, payload: bytes, persons: int = 1) -> Ask:
        action, rules = self.plan.action, self.plan.around.rules()
        lane = action.lane if what in ("call", "settle", "remind") else ("sync" if what == "harvest" else "urgent")
        return Ask(
            key=f"{self.id}#{what}",
            endpoint=endpoint,
            payload=payload,
            lane=lane,
            deadline_ms=action.deadline_ms if what == "call" else 0,
            claim=Claim(
                corp_id=action.corp_id,
                agent_id=self.plan.around.agent_id(action.corp_id),
                endpoint=endpoint,
                staff_id=self.plan.sender or action.staff_id,
                message_id=self.message_id,
                persons=persons,
            ),
            durable=what in ("call", "remind"),
            timeout_ms=rules.lanes[lane].call_timeout_ms,
        )

    def due_ms(self, *, others_in_doubt: bool) -> int:
        """When to look at it again; a time past: now; 0: when something happens."""
        if self.stage == "ended":
            return 0
        if self.pending:
            return 1
        if self.out is not None:
            return 0
        action = self.plan.action
        last_ms = action.deadline_ms + 1 if action.deadline_ms else 0
        match self.stage:
            case "ready":
                if self.shown or others_in_doubt:
                    return last_ms
                return min(max(self._due_ms, 1), last_ms or self._due_ms + 1)
            case "doubt":
                assert self._settling is not None
                horizon_ms = self._settling.horizon_ms + 1
                return horizon_ms if self.shown else min(self._settling.due_ms, horizon_ms)
        grace_ms = self._horizon_ms + self.plan.around.rules().harvest.grace_ms + 1
        if self.shown:
            return grace_ms
        if self._cancelling or self._phase:
            return max(self._due_ms, 1)
        times = [self._next_round_ms, grace_ms]
        if not self._final:
            times += [self._horizon_ms + 1]
            times += [at_ms for at_ms in [self._reminder_ms(self.plan.around.rules())] if at_ms]
        return max(self._due_ms, min(times), 1)

    # ---- going out

    def going_out(
        self, ask: Ask, now_ms: int, admission: bytes, limits_revision: str, people: list[str], *, others_in_doubt: bool
    ) -> Ask | None:
        """The ask as it leaves, or None. ``people``: all of the chunk's, in order."""
        again = None
        self.shown = False
        if self.out is None:
            again = self.ask(now_ms, others_in_doubt=others_in_doubt)
            self.shown = False
        if again is None or again.key != ask.key or again.payload != ask.payload:
            return None
        what = _what(ask)
        on_its_way_ms = self.plan.around.rules().departs_within_ms + ask.timeout_ms
        left_until_ms = now_ms + int(on_its_way_ms * self.plan.around.pace())
        match what:
            case "call":
                self._suppress(people)
                if not self.marks.count(OPEN):
                    self.stage, self.closing, self.changed = "closing", (_ENDS[SUPPRESSED], 0), True
                    return None  # and `past` publishes it
                self._admitted_at_ms, self._admission, self._revision = now_ms, admission, limits_revision
                self._left_from_ms, self._left_until_ms = now_ms, left_until_ms
                self.changed = True
                persons = replace(ask.claim, persons=self.marks.count(OPEN))
                ask = replace(ask, payload=self._payload(people), claim=persons)
            case "settle":
                assert self._settling is not None
                self._settling.asking(now_ms)
            case "remind":
                # It counts from here on, whatever becomes of it: no query tells.
                self._reminders = [at_ms for at_ms in self._reminders if at_ms > now_ms]
                self._reminded.append(now_ms)
                self.changed = True
        self.out = what
        return ask

    def _suppress(self, people: list[str]) -> None:
        if not self.plan.people:
            return
        suppressed, corp_id = self.plan.around.suppressed, self.plan.action.corp_id
        for place, person in enumerate(people):
            if self.marks[place] == OPEN and suppressed(corp_id, person):
                self.marks[place] = SUPPRESSED

    def _left(self, people: list[str]) -> list[str]:
        return [person for person, mark in zip(people, self.marks, strict=True) if mark == OPEN]

    def _payload(self, people: list[str]) -> bytes:
        return msgspec.json.encode(self.plan.content | {self.plan.field: self._left(people)})

    def not_sent(self, ask: Ask, now_ms: int) -> None:
        """It was admitted, and certainly did not leave."""
        what = _what(ask)
        if self.out != what:
            return
        self.out, self.shown = None, False
        if what == "remind":
            self._unremind(now_ms)
        self.changed = self.changed or ask.durable

    def _unremind(self, due_ms: int) -> None:
        self._reminded.pop()
        self._reminders.insert(0, due_ms)
        self.changed = True

    # ---- coming back

    def answered(
        self, ask: Ask, result: Result, now_ms: int, wall_ms: int, jitter: float, people: list[str]
    ) -> Effects:
        """What an answer leads to."""
        what = _what(ask)
        if self.out != what or self.stage == "ended":
            return Effects()  # a person was faster
        self.out, self.shown = None, False
        match what:
            case "call":
                return self._called(result, now_ms, wall_ms, jitter, people)
            case "settle":
                return self._settled(result, now_ms, wall_ms, jitter, people)
            case "remind":
                return self._was_reminded(result, now_ms, jitter)
            case "cancel":
                return self._was_cancelled(result, now_ms, jitter)
        return self._harvested(ask, result, now_ms, wall_ms, jitter, people)

    def _called(self, result: Result, now_ms: int, wall_ms: int, jitter: float, people: list[str]) -> Effects:
        self.changed = True
        if isinstance(result, NotSent):
            self.attempts, decision = domain.unanswered(self.attempts, sent=False, jitter=jitter)
            assert isinstance(decision, Again)
            self._due_ms = now_ms + decision.delay_ms
            return Effects()
        accepted = _accepted(result)
        if not isinstance(result, Answer) or (result.errcode == 0 and accepted is None):
            # An acceptance that cannot be read has made a message whose id only WeCom's list tells.
            self.attempts, _ = domain.unanswered(self.attempts, sent=True, jitter=jitter)
            self._left_until_ms = now_ms
            self.doubt(now_ms, people)
            return Effects()
        table, action = self.plan.around.error_table(), self.plan.action
        self.attempts, decision = domain.answered(action, self.attempts, result.errcode, table, now_ms, jitter)
        verdict = Verdict(errcode=result.errcode)
        self._due_ms = now_ms
        match decision:
            case End() if accepted is not None and result.errcode == 0:
                self._mark(set(accepted.fail_list or ()), people)
                return Effects(self._accept(accepted.msgid, End("done", "ok"), now_ms, wall_ms), verdict)
            case End():
                nobody = result.errcode == _NOBODY_SENDABLE
                end = End("rejected", "not_sendable") if nobody else End(decision.status, "call_failed")
                return Effects(self.close(decision, end, wall_ms, result.errcode), verdict)
            case Again(delay_ms):
                self._due_ms = now_ms + delay_ms
            case SlowDown(delay_ms):
                self._due_ms = now_ms + delay_ms
                verdict = Verdict(slow=True, errcode=result.errcode)
            case Freeze(wait_ms):
                verdict = Verdict(freeze=True, freeze_ms=wait_ms, errcode=result.errcode)
            case RenewToken():
                verdict = Verdict(renew_token=True, errcode=result.errcode)
        return Effects((), verdict)

    def doubt(self, now_ms: int, people: list[str]) -> None:
        """A message may have been made: find out."""
        doubt = Doubt(
            endpoint=MASS_SEND,
            payload=self.plan.content | {self.plan.field: self._left(people)},
            left_from_ms=self._left_from_ms,
            left_until_ms=self._left_until_ms,
        )
        corp_id, known = self.plan.action.corp_id, self.plan.around.known_message
        times = self.plan.around.rules().settle(MASS_SEND)
        self._settling = Settling(doubt, times, lambda made: known(corp_id, made), now_ms)
        self.stage, self.changed = "doubt", True

    def _settled(self, result: Result, now_ms: int, wall_ms: int, jitter: float, people: list[str]) -> Effects:
        assert self._settling is not None
        finding, verdict = self._settling.hear(result, self.plan.around.error_table(), now_ms, jitter)
        return Effects(() if finding is None else self.found(finding, now_ms, wall_ms, people), verdict)

    def found(self, finding: Finding, now_ms: int, wall_ms: int, people: list[str]) -> tuple[ActionOutcome, ...]:
        """It is known what became of the call."""
        self._settling = None
        self.attempts = msgspec.structs.replace(self.attempts, in_doubt=False)
        self.changed = True
        if isinstance(finding, NotMade):
            self.stage, self._due_ms = "ready", now_ms
            return ()
        return self._made(finding, now_ms, wall_ms, people)

    def _made(self, made: Made, now_ms: int, wall_ms: int, people: list[str]) -> tuple[ActionOutcome, ...]:
        if made.items is not None:
            self._mark({person for person in people if person not in made.items}, people)
        return self._accept(made.message_id, End("done", "settled_made"), now_ms, wall_ms)

    def said_by_person(
        self, verdict: Literal["done", "not_done"], now_ms: int, wall_ms: int, people: list[str]
    ) -> tuple[ActionOutcome, ...]:
        """A person settles it. "Done" leaves no message id, so nobody can tell what became of its people."""
        if self.stage != "doubt":
            return ()
        self.out, self.shown = None, False
        if verdict == "not_done":
            return self.found(NotMade(), now_ms, wall_ms, people)
        self._settling = None
        return self.close(End("done", "settled_by_person"), _UNKNOWN, wall_ms)

    def _mark(self, failed: set[str], people: list[str]) -> None:
        for place, person in enumerate(people):
            if self.marks[place] == OPEN and person in failed:
                self.marks[place] = NOT_SENDABLE

    def _accept(self, message_id: str, end: End, now_ms: int, wall_ms: int) -> tuple[ActionOutcome, ...]:
        rules = self.plan.around.rules().harvest
        self.message_id = message_id
        self.stage, self.changed = "accepted", True
        self._accepted_ms, self._due_ms = now_ms, now_ms
        asked_ms = self.plan.harvest_until_ms or now_ms + rules.horizon_ms
        self._horizon_ms = min(max(asked_ms, now_ms), now_ms + rules.longest_ms)
        self._next_round_ms = now_ms + rules.first_ms
        self._reminders = sorted(now_ms + after_ms for after_ms in self.plan.remind_after_ms)
        outcomes = self._tell(end, wall_ms, 0)
        self._maybe_over()
        return outcomes

    # ---- reminders, cancelling

    def _was_reminded(self, result: Result, now_ms: int, jitter: float) -> Effects:
        self.changed = True
        if isinstance(result, NotSent):
            self._unremind(now_ms)
            self._due_ms = now_ms + domain.silence_ms(1, jitter)
            return Effects()
        if not isinstance(result, Answer) or result.errcode == 0:
            return Effects()
        if result.errcode in (_REMINDED_OFTEN, _CANCELLED):
            self._reminders = []
            return Effects((), Verdict(errcode=result.errcode))
        verdict, delay_ms = judged(result.errcode, REMIND, self.plan.around.error_table(), jitter)
        if delay_ms is not None:
            # WeCom refused it, so it does not count.
            self._unremind(now_ms + delay_ms)
        return Effects((), verdict)

    def cancel(self, now_ms: int) -> None:
        """An operator: staff who have not sent it shall not any more."""
        if self.stage == "accepted" and not self._cancelling and not self._final:
            self._cancelling = self.changed = True
            self.shown = False

    def _was_cancelled(self, result: Result, now_ms: int, jitter: float) -> Effects:
        if not isinstance(result, Answer):
            self._failures += 1
            self._due_ms = now_ms + domain.silence_ms(self._failures, jitter)
            return Effects()
        self._failures = 0
        verdict, delay_ms = Verdict(errcode=result.errcode), None
        if result.errcode not in (0, _CANCELLED):
            verdict, delay_ms = judged(result.errcode, CANCEL, self.plan.around.error_table(), jitter)
            if delay_ms is not None:
                self._due_ms = now_ms + delay_ms
                return Effects((), verdict)
        self._cancelling, self.changed = False, True
        if result.errcode in (0, _CANCELLED):
            # What was sent stays sent: one more round tells, then nothing can change.
            self._final, self._phase, self._next_round_ms = True, "", now_ms
            self._reminders = []
        return Effects((), verdict)

    # ---- the harvest

    def _harvested(
        self, ask: Ask, result: Result, now_ms: int, wall_ms: int, jitter: float, people: list[str]
    ) -> Effects:
        rules = self.plan.around.rules().harvest
        if isinstance(result, TooLarge):
            self._failed_round(now_ms, rules.retry_ms)
            return Effects()
        if not isinstance(result, Answer):
            self._failures += 1
            self._due_ms = now_ms + domain.silence_ms(self._failures, jitter)
            return Effects()
        if result.errcode == _CANCELLED:
            return Effects(self.close(None, _UNCONFIRMED, wall_ms), Verdict(errcode=result.errcode))
        if result.errcode:
            verdict, delay_ms = judged(result.errcode, ask.endpoint, self.plan.around.error_table(), jitter)
            if delay_ms is not None:
                self._due_ms = now_ms + delay_ms
            elif self._phase == "rows":
                # One who has left the corp, say: the others' results come all the same, theirs in the next round.
                self._left_over = True
                return Effects(self._next_staff(now_ms, wall_ms, read=False), verdict)
            else:
                self._failed_round(now_ms, rules.retry_ms)
            return Effects((), verdict)
        try:
            if self._phase == "tasks":
                return Effects(self._listed(msgspec.json.decode(result.body, type=_Tasks), now_ms, wall_ms))
            return Effects(self._read(msgspec.json.decode(result.body, type=_Rows), now_ms, wall_ms, people))
        except msgspec.MsgspecError:
            self._failed_round(now_ms, rules.retry_ms)
            return Effects()

    def _failed_round(self, now_ms: int, retry_ms: int) -> None:
        self._failures += 1
        self._phase = ""
        self._next_round_ms = now_ms + min(retry_ms << min(self._failures - 1, 10), 3_600_000)

    def _listed(self, page: _Tasks, now_ms: int, wall_ms: int) -> tuple[ActionOutcome, ...]:
        most = self.plan.around.rules().harvest.reads_of_a_staff_member
        for task in page.task_list:
            if task.status != 2:
                self._unsent += 1
            elif self._readings.get(task.userid, 0) < most:
                self._queue.append(task.userid)
        self._cursor = page.next_cursor
        if self._cursor:
            return ()
        self._listed_ms, self._listed_unsent = now_ms, self._unsent
        self._phase, self._left_over = "rows", False
        if self._queue:
            return ()
        # Everybody has sent it and has been read as often as helps: whoever is left was left out, for good.
        self._final = self._final or (not self._unsent and bool(self._readings))
        return self._round_over(now_ms, wall_ms)

    def _read(self, page: _Rows, now_ms: int, wall_ms: int, people: list[str]) -> tuple[ActionOutcome, ...]:
        staff_id = self._queue[0]
        if self._positions is None:
            self._positions = {person: place for place, person in enumerate(people)}
        outcomes: list[ActionOutcome] = []
        for row in page.send_list:
            end = _RESULTS.get(row.status)
            if end is None:
                self._left_over = True
                continue
            person = row.external_userid or row.chat_id
            place = self._positions.get(person)
            if place is not None and self.marks[place] == OPEN:
                self.marks[place] = TOLD
                outcomes.append(self._of_person(person, end, wall_ms, 0, staff_id))
        self.changed = self.changed or bool(outcomes)
        self._failures = 0
        self._cursor = page.next_cursor
        if self._cursor:
            return tuple(outcomes)
        return (*outcomes, *self._next_staff(now_ms, wall_ms, read=True))

    def _next_staff(self, now_ms: int, wall_ms: int, *, read: bool) -> tuple[ActionOutcome, ...]:
        staff_id = self._queue.pop(0)
        if read:
            if self.plan.sender and OPEN in self.marks:
                self._left_over = True  # their rows lag, or are missing: all of the chunk's people are this member's
            most = self.plan.around.rules().harvest.reads_of_a_staff_member
            self._readings[staff_id] = self._readings.get(staff_id, 0) + 1 if self._left_over else most
        self._left_over, self._cursor = False, ""
        if self._maybe_over() or self._queue:
            return ()
        return self._round_over(now_ms, wall_ms)

    def _round_over(self, now_ms: int, wall_ms: int) -> tuple[ActionOutcome, ...]:
        every_ms = self.plan.around.rules().harvest.every_ms
        self._phase, self._cursor, self._positions = "", "", None
        self._next_round_ms = now_ms + every_ms[min(self._round, len(every_ms) - 1)]
        self._round += 1
        self._failures = 0
        self.changed = True
        return self.close(None, _UNCONFIRMED, wall_ms) if self._final else ()

    # ---- ends

    def past(self, now_ms: int, wall_ms: int, people: list[str]) -> tuple[ActionOutcome, ...]:
        """What follows from time alone, and outcomes of people that wait to be published."""
        if self.out is None:
            if self.stage == "ready" and domain.is_late(self.plan.action, now_ms):
                late = End("expired", "deadline_passed")
                return self.close(late, late, wall_ms)
            if self.stage == "doubt" and self._settling is not None and now_ms > self._settling.horizon_ms:
                self._settling = None
                return self.close(_UNKNOWN, _UNKNOWN, wall_ms)
            grace_ms = self.plan.around.rules().harvest.grace_ms
            if self.stage == "accepted" and now_ms > self._horizon_ms + grace_ms:
                return self.close(None, End("failed", "harvest_impossible"), wall_ms)
        return self._drain(wall_ms, people) if self.pending else ()

    def close(self, end: End | None, everybody: End, wall_ms: int, errcode: int = 0) -> tuple[ActionOutcome, ...]:
        """Nothing more is tried. ``end``: the chunk's own, None if that is published; ``everybody``: of who is open."""
        self.stage, self.changed, self.shown, self.out = "closing", True, False, None
        self._settling = None
        self.closing = (everybody, errcode)
        outcomes = self._tell(end, wall_ms, errcode) if end is not None else ()
        self._maybe_over()
        return outcomes

    def _drain(self, wall_ms: int, people: list[str]) -> tuple[ActionOutcome, ...]:
        outcomes: list[ActionOutcome] = []
        if self.end is None and self.closing is not None:
            outcomes += self._tell(self.closing[0], wall_ms, self.closing[1])
        most = self.plan.around.rules().sends.people_a_step
        for place, mark in enumerate(self.marks):
            if mark == TOLD or (mark == OPEN and self.closing is None):
                continue
            if len(outcomes) >= most:
                break
            end, errcode = (_ENDS[mark], 0) if mark != OPEN or self.closing is None else self.closing
            self.marks[place] = TOLD
            outcomes.append(self._of_person(people[place], end, wall_ms, errcode))
        self.changed = True
        self._maybe_over()
        return tuple(outcomes)

    def _maybe_over(self) -> bool:
        """Over, once everybody's outcome is published."""
        if self.end is not None and self.marks.count(TOLD) == len(self.marks):
            self.stage, self.changed, self.closing = "ended", True, None
            self._phase, self._positions = "", None
        return self.stage == "ended"

    def _tell(self, end: End, wall_ms: int, errcode: int) -> tuple[ActionOutcome, ...]:
        self.end = end
        return (
            outcome_of(
                self.plan.action,
                end,
                wall_ms,
                errcode=errcode,
                calls=self.attempts.calls,
                message_id=self.message_id,
                request=b"",
                changes={"action_id": self.id, "parent_id": self.plan.action.action_id},
            ),
        )

    def _of_person(self, person: str, end: End, wall_ms: int, errcode: int, staff_id: str = "") -> ActionOutcome:
        action, people = self.plan.action, self.plan.people
        return outcome_of(
            action,
            end,
            wall_ms,
            errcode=errcode,
            message_id="" if end in _ENDS.values() else self.message_id,
            request=b"",
            changes={
                "action_id": stable_id("person", self.id, person),
                "parent_id": self.id,
                "customer_id": person if people else "",
                "staff_id": staff_id or self.plan.sender or action.staff_id,
                "subject": customer_key(action.corp_id, person) if people else action.subject,
            },
        )

    # ---- the ledger

    def record(self, wall_ms: int) -> LedgerEntry:
        """The chunk as it stands."""
        self.changed = False
        ended = self.stage == "ended"
        states: dict[Stage, LedgerState] = {
            "ready": "prepared",
            "doubt": "in_doubt",
            "accepted": "accepted",
            "closing": "accepted" if self.message_id else "prepared",
            "ended": "ended",
        }
        memory = b"" if ended else msgspec.msgpack.encode(self._memory())
        return entry_of(
            self.plan.action,
            states[self.stage],
            wall_ms,
            action_id=self.id,
            parent_id=self.plan.action.action_id,
            end=self.end,
            errcode=self.attempts.errcode,
            calls=self.attempts.calls,
            message_id=self.message_id,
            due_ms=0 if ended else self.due_ms(others_in_doubt=False),
            admitted_at_ms=self._admitted_at_ms,
            limits_revision=self._revision,
            admission=self._admission,
            memory=memory,
        )

    def _memory(self) -> ChunkMemory:
        closing = None
        if self.closing is not None:
            closing = (self.closing[0].status, self.closing[0].detail, self.closing[1])
        return ChunkMemory(
            index=self.index,
            places=self.places,
            marks=zlib.compress(self.marks, 1),
            stage=self.stage,
            attempts=self.attempts,
            out=self.out or "",
            left_from_ms=self._left_from_ms,
            left_until_ms=self._left_until_ms,
            closing=closing,
            accepted_ms=self._accepted_ms,
            horizon_ms=self._horizon_ms,
            round=self._round,
            next_round_ms=self._next_round_ms,
            reminders=self._reminders,
            reminded=self._reminded,
            cancelling=self._cancelling,
            final=self._final,
        )


def restored(plan: Plan, entry: LedgerEntry, memory: ChunkMemory, people: list[str], now_ms: int) -> Chunk:
    """A chunk as its record left it: a call that was out is in doubt, a reminder that was out counts as used, queries
    begin anew. Raises LedgerDamaged."""
    chunk = Chunk(plan, memory.index, memory.places)
    try:
        chunk.marks = bytearray(zlib.decompress(memory.marks))
    except zlib.error:
        raise LedgerDamaged(f"chunk {entry.action_id}: its marks cannot be read") from None
    if len(chunk.marks) != len(people):
        raise LedgerDamaged(f"chunk {entry.action_id}: {len(chunk.marks)} marks for {len(people)} people")
    chunk.stage = memory.stage
    chunk.changed = False
    chunk.attempts = memory.attempts
    chunk.message_id = entry.message_id
    if entry.status:
        chunk.end = End(cast(ActionStatus, entry.status), entry.detail)
    if memory.closing is not None:
        status, detail, errcode = memory.closing
        chunk.closing = (End(cast(ActionStatus, status), detail), errcode)
    chunk._left_from_ms, chunk._left_until_ms = memory.left_from_ms, memory.left_until_ms
    chunk._admitted_at_ms, chunk._admission = entry.admitted_at_ms, entry.admission
    chunk._revision = entry.limits_revision
    chunk._accepted_ms, chunk._horizon_ms = memory.accepted_ms, memory.horizon_ms
    chunk._round, chunk._next_round_ms = memory.round, memory.next_round_ms
    chunk._reminders, chunk._reminded = list(memory.reminders), list(memory.reminded)
    chunk._cancelling, chunk._final = memory.cancelling, memory.final
    if memory.out == "call":
        chunk.attempts = msgspec.structs.replace(memory.attempts, calls=memory.attempts.calls + 1, in_doubt=True)
    if memory.out == "call" or memory.stage == "doubt":
        chunk.doubt(now_ms, people)
    return chunk


def _what(ask: Ask) -> What:
    return cast(What, ask.key.rpartition("#")[2])


def _accepted(result: Result) -> _Accepted | None:
    if not isinstance(result, Answer) or result.errcode:
        return None
    try:
        accepted = msgspec.json.decode(result.body, type=_Accepted)
    except msgspec.MsgspecError:
        return None
    return accepted if accepted.msgid else None
