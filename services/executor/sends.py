"""One message to many people (add_msg_template, fact sheet 3.4): cut into calls of the size that holds when each goes
out, every message id kept, results harvested until everybody's is known.

* Each person is in at most one call that WeCom accepted, and has exactly one outcome; so has each chunk, and the send.
* The list stands in records of its own, written once; what changes is small.
* While it is not known what became of one chunk, no other of this content leaves.

The platform knows no key that would make a repeat harmless: everything here is written down before it happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from services.executor import chunk as chunks
from services.executor.chunk import OPEN, Chunk, ChunkMemory, Plan
from services.executor.domain import End, is_late
from services.executor.timings import Timings
from services.executor.work import (
    Ask,
    Effects,
    LedgerDamaged,
    Memory,
    Surroundings,
    action_of,
    entry_of,
    json_object,
    outcome_of,
)
from siyu.events import Action, ActionOutcome, ActionStatus, LedgerEntry
from siyu.wecom.client import Result

OPTIONS = "siyu"
"""Key of the payload under which our own options stand; it never reaches WeCom."""

Field = Literal["external_userid", "chat_id_list"]
_FIELDS: tuple[Field, Field] = ("external_userid", "chat_id_list")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ours, of one send."""

    remind_after_ms: list[int] = []
    """After WeCom took a chunk (business ms): staff who have not sent it are reminded then."""
    harvest_until_ms: int = 0
    """Business time, epoch ms: whoever has not sent it by then is taken as not going to; 0: the rules' horizon."""


class SendMemory(Memory, frozen=True, tag="send"):
    """What is kept of a send that is not over."""

    content: bytes
    field: Field
    total: int
    records: int
    trigger_received_at_ms: int
    remind_after_ms: list[int]
    harvest_until_ms: int
    free: list[tuple[int, int]]
    formed: int
    ended: int
    accepted: int
    calls: int
    failure: tuple[str, str, int] | None
    stopping: tuple[str, str] | None


class BodyMemory(Memory, frozen=True, tag="body"):
    """A part of the list of people."""

    number: int
    ids: list[str]


_memory = msgspec.msgpack.Decoder(SendMemory | ChunkMemory | BodyMemory)


def begin(action: Action, around: Surroundings, now_ms: int) -> Send | End:
    """The machine of a send, or why there will be none."""
    rules = around.rules()
    if len(action.payload) > rules.payload_bytes:
        return End("rejected", "payload_too_large")
    content = json_object(action.payload)
    if content is None:
        return End("rejected", "payload_malformed")
    if 0 < action.deadline_ms < action.not_before_ms:
        return End("rejected", "contradictory")
    try:
        options = msgspec.convert(content.pop(OPTIONS, {}), type=Options)
    except msgspec.ValidationError:
        return End("rejected", "options_malformed")
    if len(options.remind_after_ms) > rules.reminders.most_options or any(at < 0 for at in options.remind_after_ms):
        return End("rejected", "options_malformed")
    if options.harvest_until_ms < 0:
        return End("rejected", "options_malformed")
    fault = _fault(content, rules)
    if fault is not None:
        return fault
    field = _FIELDS[1] if content.get("chat_type") == "group" else _FIELDS[0]
    people = list(dict.fromkeys(content.pop(field)))
    for name in _FIELDS:
        content.pop(name, None)
    plan = Plan(
        action=msgspec.structs.replace(action, payload=msgspec.json.encode(content)),
        content=content,
        field=field,
        sender=content.get("sender") or "",
        remind_after_ms=tuple(options.remind_after_ms),
        harvest_until_ms=options.harvest_until_ms,
        around=around,
    )
    step = rules.sends.ids_a_record
    bodies = [BodyMemory(number, people[at : at + step]) for number, at in enumerate(range(0, len(people), step))]
    send = Send(plan, [msgspec.msgpack.encode(body) for body in bodies], len(people), now_ms)
    send.free = [(0, len(people))]
    send.new = send.changed = True
    return send


def _fault(content: dict[str, Any], rules: Timings) -> End | None:
    """What is wrong with a send, None when nothing is (fact sheet 3.4)."""
    malformed, contradictory = End("rejected", "payload_malformed"), End("rejected", "contradictory")
    kind = content.get("chat_type", "single")
    if kind not in ("single", "group"):
        return malformed
    lists = [content.get(name) or [] for name in _FIELDS]
    if any(not isinstance(ids, list) for ids in lists):
        return malformed
    if (lists[0] and lists[1]) or lists[kind == "single"]:
        return contradictory
    ids = lists[kind == "group"]
    if not ids:
        return End("rejected", "no_recipients")
    if len(ids) > rules.sends.most_people:
        return End("rejected", "too_many_recipients")
    if any(not isinstance(item, str) or not 0 < len(item) <= rules.sends.longest_id_bytes for item in ids):
        return malformed
    sender = content.get("sender") or ""
    if not isinstance(sender, str):
        return malformed
    if kind == "group" and (not sender or content.get("allow_select")):
        return contradictory
    if content.get("tag_filter"):
        return contradictory  # WeCom would ignore it silently
    return _content_fault(content, rules)


def _content_fault(content: dict[str, Any], rules: Timings) -> End | None:
    malformed = End("rejected", "payload_malformed")
    text, attachments = content.get("text") or {}, content.get("attachments") or []
    if not isinstance(text, dict) or not isinstance(attachments, list):
        return malformed
    words = text.get("content") or ""
    if not isinstance(words, str) or any(not isinstance(item, dict) for item in attachments):
        return malformed
    if not words and not attachments:
        return malformed
    if len(words.encode()) > rules.sends.text_bytes or len(attachments) > rules.sends.attachments:
        return End("rejected", "payload_too_large")
    return None


def restore(entries: Sequence[LedgerEntry], around: Surroundings, now_ms: int) -> Send:
    """The machine from its open records: the send's own, its chunks', and its list. Raises LedgerDamaged."""
    head: tuple[LedgerEntry, SendMemory] | None = None
    parts: list[tuple[LedgerEntry, ChunkMemory]] = []
    bodies: dict[int, bytes] = {}
    for entry in entries:
        if entry.state == "ended":
            continue
        try:
            memory = _memory.decode(entry.memory)
        except msgspec.MsgspecError:
            raise LedgerDamaged(f"record {entry.action_id} in state {entry.state} cannot be read") from None
        match memory:
            case SendMemory():
                head = entry, memory
            case ChunkMemory():
                parts.append((entry, memory))
            case BodyMemory():
                bodies[memory.number] = entry.memory
    if head is None:
        raise LedgerDamaged(f"record {entries[0].action_id}: the send it belongs to has none")
    entry, kept = head
    if set(bodies) != set(range(kept.records)):
        raise LedgerDamaged(f"send {entry.action_id}: {len(bodies)} of {kept.records} records of its list")
    plan = Plan(
        action=action_of(entry, kept.content, kept.trigger_received_at_ms),
        content=json_object(kept.content) or {},
        field=kept.field,
        sender=str((json_object(kept.content) or {}).get("sender") or ""),
        remind_after_ms=tuple(kept.remind_after_ms),
        harvest_until_ms=kept.harvest_until_ms,
        around=around,
    )
    send = Send(plan, [bodies[number] for number in range(kept.records)], kept.total, now_ms)
    send.free, send.formed = list(kept.free), kept.formed
    send.ended_chunks, send.accepted_chunks, send.calls = kept.ended, kept.accepted, kept.calls
    if kept.failure is not None:
        send.failure = (End(cast(ActionStatus, kept.failure[0]), kept.failure[1]), kept.failure[2])
    if kept.stopping is not None:
        send.stopping = End(cast(ActionStatus, kept.stopping[0]), kept.stopping[1])
    for part, memory in sorted(parts, key=lambda found: found[1].index):
        chunk = chunks.restored(plan, part, memory, send.people(memory.places), now_ms)
        send.chunks[chunk.id] = chunk
    return send


class Send:
    """The machine. See :class:`services.executor.work.Work`."""

    kept = True
    """Its first records hold everything."""

    def __init__(self, plan: Plan, bodies: list[bytes], total: int, now_ms: int) -> None:
        self.action = plan.action
        self.chunks: dict[str, Chunk] = {}
        """Those that are not over, by id."""
        self.free: list[tuple[int, int]] = []
        """Places of the list that are in no chunk yet."""
        self.formed = self.ended_chunks = self.accepted_chunks = self.calls = 0
        self.failure: tuple[End, int] | None = None
        """The first chunk's that was not accepted, and its errcode."""
        self.stopping: End | None = None
        self.new = False
        self.changed = False
        self._plan = plan
        self._bodies = bodies
        self._total = total
        self._begun_ms = now_ms
        self._end: End | None = None
        self._ended_now: list[Chunk] = []
        self._cached: tuple[list[tuple[int, int]], list[str]] | None = None

    @property
    def ended(self) -> bool:
        return self._end is not None

    @property
    def in_doubt(self) -> int:
        return sum(chunk.unsettled for chunk in self.chunks.values())

    def people(self, places: list[tuple[int, int]]) -> list[str]:
        """The ids at some places of the list, in order. Kept encoded: a list of objects would take three times that."""
        if self._cached is not None and self._cached[0] == places:
            return self._cached[1]
        step = self._plan.around.rules().sends.ids_a_record
        found: list[str] = []
        for begin_at, until in places:
            for number in range(begin_at // step, -(-until // step)):
                body = cast(BodyMemory, _memory.decode(self._bodies[number]))
                found += body.ids[max(0, begin_at - number * step) : until - number * step]
        self._cached = (list(places), found)
        return found

    # ---- what is to be done

    def asks(self, now_ms: int) -> list[Ask]:
        if self._end is not None:
            return []
        self._form(now_ms)
        doubt = self.in_doubt > 0
        asks: list[Ask] = []
        for chunk in list(self.chunks.values()):
            ask = chunk.ask(now_ms, others_in_doubt=doubt)
            if ask is not None:
                asks.append(ask)
        return asks

    def _form(self, now_ms: int) -> None:
        """Cuts off chunks of the size that holds now, as many as may go out together."""
        if self.stopping is not None or now_ms < self.action.not_before_ms or is_late(self.action, now_ms):
            return
        if self.in_doubt:
            return
        limit = self._limit()
        for chunk in list(self.chunks.values()):
            self._cut(chunk, limit)
        places = self._plan.around.rules().sends.chunks_at_once
        while self.free and sum(chunk.unsent for chunk in self.chunks.values()) < places:
            self._new_chunk(limit)

    def _limit(self) -> int:
        limits = self._plan.around.limits()
        known = limits.request_limit(self.action.corp_id, self.action.endpoint, self._plan.field)
        return max(1, self._plan.around.rules().sends.ids_a_call if known is None else known)

    def _new_chunk(self, limit: int) -> Chunk:
        places: list[tuple[int, int]] = []
        room = limit
        while self.free and room:
            begin_at, until = self.free.pop(0)
            taken = min(until, begin_at + room)
            places.append((begin_at, taken))
            room -= taken - begin_at
            if taken < until:
                self.free.insert(0, (taken, until))
        chunk = Chunk(self._plan, self.formed, places)
        self.formed += 1
        self.chunks[chunk.id] = chunk
        self.changed = True
        return chunk

    def _cut(self, chunk: Chunk, limit: int) -> None:
        """A chunk that waits while the limit shrinks gives up whoever is too many. Outcomes that wait come first."""
        if chunk.stage != "ready" or chunk.out or chunk.pending or chunk.marks.count(OPEN) <= limit:
            return
        places = [place for begin_at, until in chunk.places for place in range(begin_at, until)]
        keep, back, room = [], [], limit
        for at, place in enumerate(places):
            if chunk.marks[at] != OPEN or room:
                room -= chunk.marks[at] == OPEN
                keep.append(at)
            else:
                back.append(place)
        chunk.marks = bytearray(chunk.marks[at] for at in keep)
        chunk.places = _runs([places[at] for at in keep])
        chunk.changed = self.changed = True
        chunk.shown = False
        self.free = _runs(back) + self.free

    def due_ms(self) -> int:
        if self._end is not None:
            return 0
        if self._step_waits():
            return 1
        doubt = self.in_doubt > 0
        times = [due for chunk in self.chunks.values() if (due := chunk.due_ms(others_in_doubt=doubt))]
        if self.free:
            last_ms = self.action.deadline_ms + 1 if self.action.deadline_ms else 0
            room = sum(chunk.unsent for chunk in self.chunks.values()) < self._plan.around.rules().sends.chunks_at_once
            if room and not doubt:
                times.append(max(self.action.not_before_ms, 1))
            if last_ms:
                times.append(last_ms)
        return min(times, default=0)

    def _step_waits(self) -> bool:
        """Something follows from what has happened, and only ``past`` does it."""
        if self.stopping is not None and (self.free or any(self._stoppable(c) for c in self.chunks.values())):
            return True
        return not self.free and not self.chunks

    # ---- going out and coming back

    def going_out(self, ask: Ask, now_ms: int, admission: bytes, limits_revision: str) -> Ask | None:
        chunk = self.chunks.get(ask.key.rpartition("#")[0])
        if chunk is None or self._end is not None:
            return None
        if chunk.stage == "ready" and (self.stopping is not None or chunk.marks.count(OPEN) > self._limit()):
            chunk.shown = False
            return None
        people = self.people(chunk.places)
        doubt = self.in_doubt > 0
        return chunk.going_out(ask, now_ms, admission, limits_revision, people, others_in_doubt=doubt)

    def not_sent(self, ask: Ask, now_ms: int) -> None:
        chunk = self.chunks.get(ask.key.rpartition("#")[0])
        if chunk is not None:
            chunk.not_sent(ask, now_ms)

    def answered(self, ask: Ask, result: Result, now_ms: int, wall_ms: int, jitter: float) -> Effects:
        chunk = self.chunks.get(ask.key.rpartition("#")[0])
        if chunk is None or self._end is not None:
            return Effects()
        effects = chunk.answered(ask, result, now_ms, wall_ms, jitter, self.people(chunk.places))
        return Effects(effects.outcomes + self._after(now_ms, wall_ms), effects.verdict)

    def past(self, now_ms: int, wall_ms: int) -> Effects:
        if self._end is not None:
            return Effects()
        outcomes: list[ActionOutcome] = []
        if self.free and is_late(self.action, now_ms) and self.stopping is None:
            self.stopping = End("expired", "deadline_passed")
            self.changed = True
        if self.stopping is not None and self.free and not any(chunk.pending for chunk in self.chunks.values()):
            # Who is in no chunk yet gets one, so that everybody's outcome has the same form; step by step.
            chunk = self._new_chunk(self._limit())
            outcomes += chunk.close(self.stopping, self.stopping, wall_ms)
        steps = self._plan.around.rules().sends.people_a_step
        for chunk in list(self.chunks.values()):
            outcomes += chunk.past(now_ms, wall_ms, self.people(chunk.places) if chunk.pending else [])
            if len(outcomes) >= steps:
                break
        return Effects((*outcomes, *self._after(now_ms, wall_ms)))

    def stop(self, status: ActionStatus, detail: str, now_ms: int, wall_ms: int) -> Effects:
        if self._end is not None:
            return Effects()
        if self.stopping is None or status == "cancelled":
            self.stopping = End(status, detail)
            self.changed = True
        return Effects(self._after(now_ms, wall_ms))

    def _stoppable(self, chunk: Chunk) -> bool:
        return chunk.stage == "ready" and not chunk.out

    def _after(self, now_ms: int, wall_ms: int) -> tuple[ActionOutcome, ...]:
        """What follows for the whole: chunks that must not go out any more, chunks that are over, the end."""
        outcomes: list[ActionOutcome] = []
        for chunk in list(self.chunks.values()):
            if self.stopping is not None:
                if self._stoppable(chunk):
                    outcomes += chunk.close(self.stopping, self.stopping, wall_ms)
                elif self.stopping.status == "cancelled":
                    chunk.cancel(now_ms)
            if chunk.stage == "ended":
                self._count(chunk)
        if not self.free and not self.chunks and self._end is None:
            outcomes += self._over(wall_ms)
        return tuple(outcomes)

    def _count(self, chunk: Chunk) -> None:
        del self.chunks[chunk.id]
        self._ended_now.append(chunk)
        self.ended_chunks += 1
        self.calls += chunk.attempts.calls
        assert chunk.end is not None
        if chunk.end.status == "done":
            self.accepted_chunks += 1
        elif self.failure is None:
            self.failure = (chunk.end, chunk.attempts.errcode)
        self.changed = True
        self._cached = None

    def _over(self, wall_ms: int) -> tuple[ActionOutcome, ...]:
        errcode = 0
        if self.failure is None:
            self._end = End("done", "ok" if self._plan.sender else "no_sender")
        elif self.accepted_chunks:
            self._end = End("done", "partly_sent")
        else:
            self._end, errcode = self.failure
        self.changed = True
        return (outcome_of(self.action, self._end, wall_ms, errcode=errcode, calls=self.calls),)

    def settle_by_person(
        self, verdict: Literal["done", "not_done"], now_ms: int, wall_ms: int, action_id: str = ""
    ) -> Effects:
        outcomes: list[ActionOutcome] = []
        for chunk in list(self.chunks.values()):
            if chunk.unsettled and action_id in ("", self.action.action_id, chunk.id):
                outcomes += chunk.said_by_person(verdict, now_ms, wall_ms, self.people(chunk.places))
        return Effects((*outcomes, *self._after(now_ms, wall_ms)))

    # ---- the ledger

    def records(self, wall_ms: int) -> list[LedgerEntry]:
        entries: list[LedgerEntry] = []
        if self.new:
            entries += [
                entry_of(self.action, "body", wall_ms, action_id=body_id, parent_id=self.action.action_id, memory=body)
                for body_id, body in zip(self._body_ids(), self._bodies, strict=True)
            ]
            self.new = False
        entries += [chunk.record(wall_ms) for chunk in [*self._ended_now, *self.chunks.values()] if chunk.changed]
        self._ended_now = []
        if self.changed:
            entries.append(self._record(wall_ms))
            if self._end is not None:
                # Nobody reads the list any more: its records become small.
                entries += [
                    entry_of(self.action, "ended", wall_ms, action_id=body_id, parent_id=self.action.action_id)
                    for body_id in self._body_ids()
                ]
            self.changed = False
        return entries

    def _body_ids(self) -> list[str]:
        return [f"{self.action.action_id}#body{number}" for number in range(len(self._bodies))]

    def _record(self, wall_ms: int) -> LedgerEntry:
        memory = SendMemory(
            content=self.action.payload,
            field=self._plan.field,
            total=self._total,
            records=len(self._bodies),
            trigger_received_at_ms=self.action.trigger_received_at_ms,
            remind_after_ms=list(self._plan.remind_after_ms),
            harvest_until_ms=self._plan.harvest_until_ms,
            free=self.free,
            formed=self.formed,
            ended=self.ended_chunks,
            accepted=self.accepted_chunks,
            calls=self.calls,
            failure=(self.failure[0].status, self.failure[0].detail, self.failure[1]) if self.failure else None,
            stopping=(self.stopping.status, self.stopping.detail) if self.stopping else None,
        )
        over = self._end is not None
        entry = entry_of(
            self.action,
            "ended" if over else "accepted" if self.accepted_chunks else "prepared",
            wall_ms,
            end=self._end,
            calls=self.calls,
            due_ms=0 if over else self.due_ms(),
            memory=b"" if over else msgspec.msgpack.encode(memory),
        )
        if not over and not self._plan.sender:
            # Decided by whoever made the action, and recorded: WeCom then chooses who sends (requirements, traps).
            entry = msgspec.structs.replace(entry, detail="no_sender")
        return entry


def _runs(places: list[int]) -> list[tuple[int, int]]:
    """Ascending places as [from, until) ranges."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs
