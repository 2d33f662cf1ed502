"""One action, one call: repeated freely where a repeat changes nothing, and never before it is settled where a repeat
would make something twice.

    read, set   nothing durable but the end: after a crash the source record is simply done again
    once        `prepared` is durable; after a crash it is repeated inside the deadline, since "already used" is an
                answer; past the deadline with a call that got none the outcome is unknown, never "expired"
    create      `prepared` is durable; no answer, or a crash, puts it in doubt until a query or a person settles it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from services.executor import domain
from services.executor.domain import Again, Attempts, End, Freeze, RenewToken, SlowDown
from services.executor.governor import Claim
from services.executor.settle import Doubt, Finding, Made, NotMade, Settling
from services.executor.work import (
    Ask,
    Effects,
    LedgerDamaged,
    Memory,
    Surroundings,
    Verdict,
    action_of,
    entry_of,
    json_object,
    outcome_of,
)
from siyu.events import Action, ActionOutcome, ActionStatus, LedgerEntry
from siyu.events.ids import customer_key, stable_id
from siyu.events.types import LedgerState
from siyu.wecom.client import Answer, NotSent, Result, TooLarge
from siyu.wecom.endpoints import ENDPOINTS, Endpoint

_NEW = Attempts()
CALL, SETTLE = "call", "settle"


class SingleMemory(Memory, frozen=True, tag="single"):
    """What is kept of an action that is not over."""

    payload: bytes
    trigger_received_at_ms: int
    attempts: Attempts
    out: bool
    left_from_ms: int
    left_until_ms: int
    stopping: tuple[str, str] | None


def begin(action: Action, around: Surroundings, now_ms: int) -> Single | End:
    """The machine of one call, or why there will be none."""
    if len(action.payload) > around.rules().payload_bytes:
        return End("rejected", "payload_too_large")
    if json_object(action.payload) is None:
        return End("rejected", "payload_malformed")
    if 0 < action.deadline_ms < action.not_before_ms:
        return End("rejected", "contradictory")
    return Single(action, around, now_ms)


def restore(entries: Sequence[LedgerEntry], around: Surroundings, now_ms: int) -> Single:
    """The machine from its record. Raises LedgerDamaged."""
    if len(entries) != 1:
        raise LedgerDamaged(f"action {entries[0].action_id}: {len(entries)} records, one is needed")
    entry = entries[0]
    try:
        memory = msgspec.msgpack.decode(entry.memory, type=SingleMemory)
    except msgspec.MsgspecError:
        raise LedgerDamaged(f"action {entry.action_id}: its record in state {entry.state} cannot be read") from None
    return Single.restored(entry, memory, around, now_ms)


class Single:
    """The machine. See :class:`services.executor.work.Work`."""

    __slots__ = (
        "_admission",
        "_admitted_at_ms",
        "_around",
        "_attempts",
        "_begun_ms",
        "_changed",
        "_due_ms",
        "_end",
        "_left_from_ms",
        "_left_until_ms",
        "_message_id",
        "_on_disk",
        "_out",
        "_revision",
        "_settling",
        "_shown",
        "_stopping",
        "action",
    )

    def __init__(self, action: Action, around: Surroundings, now_ms: int) -> None:
        self.action = action
        self._around = around
        self._attempts = _NEW
        self._begun_ms = now_ms
        self._due_ms = 0
        self._out = ""
        """Which of its calls is out: CALL, SETTLE or none."""
        self._shown = False
        """The newest ask has been given and nothing happened since."""
        self._settling: Settling | None = None
        self._stopping: End | None = None
        self._end: End | None = None
        self._message_id = ""
        self._left_from_ms = self._left_until_ms = 0
        self._admitted_at_ms = 0
        self._admission, self._revision = b"", ""
        self._on_disk = self._changed = False

    @classmethod
    def restored(cls, entry: LedgerEntry, memory: SingleMemory, around: Surroundings, now_ms: int) -> Single:
        """The machine as its record left it; a call that was out is in doubt."""
        work = cls(action_of(entry, memory.payload, memory.trigger_received_at_ms), around, now_ms)
        work._attempts = memory.attempts
        work._left_from_ms, work._left_until_ms = memory.left_from_ms, memory.left_until_ms
        work._message_id = entry.message_id
        work._on_disk, work._changed = True, False
        work._admitted_at_ms, work._revision = entry.admitted_at_ms, entry.limits_revision
        work._admission = entry.admission
        if memory.stopping is not None:
            work._stopping = End(cast(ActionStatus, memory.stopping[0]), memory.stopping[1])
        if memory.out:
            work._attempts = msgspec.structs.replace(memory.attempts, calls=memory.attempts.calls + 1, in_doubt=True)
            work._changed = True
        if work._creates and work._attempts.in_doubt:
            work._settle(now_ms)
        return work

    @property
    def ended(self) -> bool:
        return self._end is not None

    @property
    def kept(self) -> bool:
        return self._on_disk or self.ended

    @property
    def in_doubt(self) -> int:
        return int(self._settling is not None)

    @property
    def _endpoint(self) -> Endpoint:
        return ENDPOINTS[self.action.endpoint]

    @property
    def _creates(self) -> bool:
        return self._endpoint.repeat == "create"

    @property
    def _durable(self) -> bool:
        return self._endpoint.repeat in ("create", "once")

    def asks(self, now_ms: int) -> list[Ask]:
        if self._end is not None or self._out:
            return []
        if self._settling is not None:
            query = self._settling.query(now_ms)
            if query is None or now_ms > self._settling.horizon_ms:
                return []
            self._shown = True
            return [self._ask(SETTLE, query.endpoint, query.payload, 0)]
        if now_ms < max(self._due_ms, self.action.not_before_ms):
            return []
        if self._stopping is not None or domain.is_late(self.action, now_ms):
            return []
        self._shown = True
        return [self._ask(CALL, self.action.endpoint, self.action.payload, self.action.deadline_ms)]

    def _ask(self, what: str, endpoint: str, payload: bytes, deadline_ms: int) -> Ask:
        action, rules = self.action, self._around.rules()
        message_id, persons = "", 1
        if what == CALL:
            body = json_object(payload) or {}
            message_id, persons = str(body.get("msgid") or ""), _persons(action.endpoint, body)
        claim = Claim(
            corp_id=action.corp_id,
            agent_id=self._around.agent_id(action.corp_id),
            endpoint=endpoint,
            staff_id=action.staff_id,
            customer_id=action.customer_id,
            message_id=message_id,
            persons=persons,
        )
        return Ask(
            key=f"{action.action_id}#{what}",
            endpoint=endpoint,
            payload=payload,
            lane=action.lane,
            deadline_ms=deadline_ms,
            claim=claim,
            durable=what == CALL and self._durable,
            timeout_ms=rules.lanes[action.lane].call_timeout_ms,
        )

    def due_ms(self) -> int:
        if self._end is not None or self._out:
            return 0
        if self._settling is not None:
            horizon_ms = self._settling.horizon_ms + 1
            return horizon_ms if self._shown else min(self._settling.due_ms, horizon_ms)
        if self._stopping is not None:
            return max(1, self._begun_ms)
        last_ms = self._last_ms()
        if self._shown:
            return last_ms
        start_ms = max(self._due_ms, self.action.not_before_ms, self._begun_ms, 1)
        return min(start_ms, last_ms) if last_ms else start_ms

    def _last_ms(self) -> int:
        """When it is given up unless a call is out; 0: never."""
        if self.action.deadline_ms:
            return self.action.deadline_ms + 1
        hold_ms = self._around.rules().lanes[self.action.lane].hold_ms
        if not hold_ms or self._on_disk:
            return 0
        return max(self._begun_ms, self.action.not_before_ms) + hold_ms + 1

    def going_out(self, ask: Ask, now_ms: int, admission: bytes, limits_revision: str) -> Ask | None:
        self._shown = False
        if self._end is not None or self._out:
            return None
        if ask.key.endswith(SETTLE):
            query = self._settling.query(now_ms) if self._settling is not None else None
            if self._settling is None or query is None or query.payload != ask.payload:
                return None
            self._settling.asking(now_ms)
            self._out = SETTLE
            return ask
        if self._settling is not None or self._stopping is not None:
            return None
        self._out = CALL
        self._left_from_ms = now_ms
        on_its_way_ms = self._around.rules().departs_within_ms + ask.timeout_ms
        self._left_until_ms = now_ms + int(on_its_way_ms * self._around.pace())
        self._admitted_at_ms, self._admission, self._revision = now_ms, admission, limits_revision
        if self._durable:
            self._on_disk = self._changed = True
        return ask

    def not_sent(self, ask: Ask, now_ms: int) -> None:
        what = SETTLE if ask.key.endswith(SETTLE) else CALL
        if self._out == what:
            self._changed = self._changed or (what == CALL and self._durable)
            self._out, self._shown = "", False

    def answered(self, ask: Ask, result: Result, now_ms: int, wall_ms: int, jitter: float) -> Effects:
        what = SETTLE if ask.key.endswith(SETTLE) else CALL
        if self._end is not None or self._out != what:
            return Effects()  # a person was faster
        self._out, self._shown = "", False
        if what == SETTLE and self._settling is not None:
            finding, verdict = self._settling.hear(result, self._around.error_table(), now_ms, jitter)
            outcomes = self._found(finding, now_ms, wall_ms) if finding is not None else ()
            return Effects(outcomes, verdict)
        self._changed = self._changed or self._durable
        outcomes, verdict = self._heard(result, now_ms, wall_ms, jitter)
        return Effects(outcomes or self._stopped(wall_ms), verdict)

    def _heard(
        self, result: Result, now_ms: int, wall_ms: int, jitter: float
    ) -> tuple[tuple[ActionOutcome, ...], Verdict]:
        if not isinstance(result, Answer):
            if self._creates and not isinstance(result, NotSent):
                self._attempts, _ = domain.unanswered(self._attempts, sent=True, jitter=jitter)
                self._left_until_ms = now_ms
                self._settle(now_ms)
                return (), Verdict()
            if isinstance(result, TooLarge):
                self._attempts = msgspec.structs.replace(self._attempts, calls=self._attempts.calls + 1, in_doubt=False)
                return self._over(End("failed", "response_too_large"), wall_ms), Verdict()
            sent = not isinstance(result, NotSent)
            self._attempts, decision = domain.unanswered(self._attempts, sent=sent, jitter=jitter)
            assert isinstance(decision, Again)
            self._due_ms = now_ms + decision.delay_ms
            return (), Verdict()
        table = self._around.error_table()
        self._attempts, decision = domain.answered(self.action, self._attempts, result.errcode, table, now_ms, jitter)
        verdict = Verdict(errcode=result.errcode)
        self._due_ms = now_ms
        match decision:
            case End():
                tells = self._endpoint.repeat in ("read", "create")
                body = result.body if tells else b""
                if self._creates and result.errcode == 0:
                    self._message_id = _made(self.action.endpoint, result.body)
                    parts = self._parts(_items_of(self.action, result.body), wall_ms)
                    return self._over(decision, wall_ms, body) + parts, verdict
                return self._over(decision, wall_ms, body), verdict
            case Again(delay_ms):
                self._due_ms = now_ms + delay_ms
            case SlowDown(delay_ms):
                self._due_ms = now_ms + delay_ms
                verdict = Verdict(slow=True, errcode=result.errcode)
            case Freeze(wait_ms):
                verdict = Verdict(freeze=True, freeze_ms=wait_ms, errcode=result.errcode)
            case RenewToken():
                verdict = Verdict(renew_token=True, errcode=result.errcode)
        return (), verdict

    def _settle(self, now_ms: int) -> None:
        corp_id = self.action.corp_id
        doubt = Doubt(
            endpoint=self.action.endpoint,
            payload=json_object(self.action.payload) or {},
            left_from_ms=self._left_from_ms,
            left_until_ms=self._left_until_ms,
        )
        known = self._around.known_message
        times = self._around.rules().settle(self.action.endpoint)
        self._settling = Settling(doubt, times, lambda made: known(corp_id, made), now_ms)

    def _found(self, finding: Finding, now_ms: int, wall_ms: int) -> tuple[ActionOutcome, ...]:
        self._settling = None
        self._attempts = msgspec.structs.replace(self._attempts, in_doubt=False)
        self._changed = True
        if isinstance(finding, NotMade):
            self._due_ms = now_ms
            return self._stopped(wall_ms)
        self._message_id = finding.message_id
        items = _items_found(self.action, finding)
        return self._over(End("done", "settled_made"), wall_ms) + self._parts(items, wall_ms)

    def _stopped(self, wall_ms: int) -> tuple[ActionOutcome, ...]:
        """Ends what was to stop and is neither out nor in doubt any more."""
        if self._stopping is None or self._end is not None or self._out or self._settling is not None:
            return ()
        # A call without an answer may have done it: then nobody may say that it was held back.
        doubtful = self._attempts.in_doubt and self._endpoint.effect == "write"
        return self._over(End("failed", "outcome_unknown") if doubtful else self._stopping, wall_ms)

    def past(self, now_ms: int, wall_ms: int) -> Effects:
        if self._end is not None or self._out:
            return Effects()
        if self._settling is not None:
            if now_ms > self._settling.horizon_ms:
                self._settling = None
                return Effects(self._over(End("failed", "outcome_unknown"), wall_ms))
            return Effects()
        if self._stopping is not None:
            return Effects(self._stopped(wall_ms))
        last_ms = self._last_ms()
        if last_ms and now_ms >= last_ms:
            held = not self.action.deadline_ms
            return Effects(self._over(domain.gave_up(self._attempts, self._endpoint.effect, held=held), wall_ms))
        return Effects()

    def stop(self, status: ActionStatus, detail: str, now_ms: int, wall_ms: int) -> Effects:
        if self._end is not None:
            return Effects()
        if self._stopping is None:
            self._stopping = End(status, detail)
            self._changed = self._changed or self._on_disk
        return Effects(self._stopped(wall_ms))

    def settle_by_person(
        self, verdict: Literal["done", "not_done"], now_ms: int, wall_ms: int, action_id: str = ""
    ) -> Effects:
        if self._settling is None or self._end is not None:
            return Effects()
        if self._out == SETTLE:
            self._out = ""  # its answer changes nothing any more
        if verdict == "not_done":
            return Effects(self._found(NotMade(), now_ms, wall_ms))
        self._settling = None
        return Effects(self._over(End("done", "settled_by_person"), wall_ms))

    def _over(self, end: End, wall_ms: int, response: bytes = b"") -> tuple[ActionOutcome, ...]:
        self._end, self._changed, self._settling, self._out = end, True, None, ""
        return (
            outcome_of(
                self.action,
                end,
                wall_ms,
                errcode=self._attempts.errcode,
                calls=self._attempts.calls,
                message_id=self._message_id,
                response=response,
            ),
        )

    def _parts(self, items: list[tuple[str, End, int]], wall_ms: int) -> tuple[ActionOutcome, ...]:
        """An outcome for every person or group of a call that names several."""
        action = self.action
        people = "transfer_customer" in action.endpoint
        return tuple(
            outcome_of(
                action,
                end,
                wall_ms,
                errcode=errcode,
                request=b"",
                message_id=self._message_id,
                changes={
                    "action_id": stable_id("person", action.action_id, item),
                    "parent_id": action.action_id,
                    "customer_id": item if people else "",
                    "subject": customer_key(action.corp_id, item) if people else action.subject,
                },
            )
            for item, end, errcode in items
        )

    def records(self, wall_ms: int) -> list[LedgerEntry]:
        if not self._changed:
            return []
        self._changed = False
        action = self.action
        if self._end is not None:
            state: LedgerState = "ended"
        elif self._settling is not None:
            state = "in_doubt"
        else:
            state = "prepared"
        memory = b""
        if self._end is None:
            memory = msgspec.msgpack.encode(
                SingleMemory(
                    payload=action.payload,
                    trigger_received_at_ms=action.trigger_received_at_ms,
                    attempts=self._attempts,
                    out=self._out == CALL,
                    left_from_ms=self._left_from_ms,
                    left_until_ms=self._left_until_ms,
                    stopping=(self._stopping.status, self._stopping.detail) if self._stopping else None,
                )
            )
        return [
            entry_of(
                action,
                state,
                wall_ms,
                end=self._end,
                errcode=self._attempts.errcode,
                calls=self._attempts.calls,
                message_id=self._message_id,
                due_ms=0 if self._end else self.due_ms(),
                admitted_at_ms=self._admitted_at_ms,
                limits_revision=self._revision,
                admission=self._admission,
                memory=memory,
            )
        ]


def _persons(endpoint: str, body: dict[str, Any]) -> int:
    """How many people a call counts for (fact sheet 4.1: person-times of message/send, groups of a transfer)."""
    if endpoint == "message/send":
        users = body.get("touser")
        return max(1, users.count("|") + 1) if isinstance(users, str) else 1
    chats = body.get("chat_id_list")
    return max(1, len(chats)) if isinstance(chats, list) else 1


_MADE = ("msgid", "jobid", "config_id")


def _made(endpoint: str, body: bytes) -> str:
    """The platform's id in an answer, empty when it has none."""
    answer = json_object(body) or {}
    for name in _MADE:
        if isinstance(answer.get(name), str):
            return str(answer[name])
    group = answer.get("tag_group")
    return str(group.get("group_id") or "") if isinstance(group, dict) else ""


_DONE, _REFUSED, _NOT_TAKEN = End("done", "ok"), End("rejected", "refused"), End("rejected", "not_taken")


class _Item(msgspec.Struct):
    external_userid: str = ""
    chat_id: str = ""
    errcode: int = 0


class _Items(msgspec.Struct):
    customer: list[_Item] = []
    failed_chat_list: list[_Item] = []


def _named(action: Action) -> list[str]:
    body = json_object(action.payload) or {}
    name = "external_userid" if "transfer_customer" in action.endpoint else "chat_id_list"
    items = body.get(name) if "transfer" in action.endpoint else None
    return list(dict.fromkeys(map(str, items))) if isinstance(items, list) else []


def _items_of(action: Action, body: bytes) -> list[tuple[str, End, int]]:
    """What became of each customer or group of a transfer, from the answer (fact sheet 3.6)."""
    named = _named(action)
    if not named:
        return []
    try:
        answer = msgspec.json.decode(body, type=_Items)
    except msgspec.ValidationError:
        # It was accepted, and what of it was not is unreadable.
        return [(item, End("failed", "outcome_unknown"), 0) for item in named]
    errors = {item.chat_id: item.errcode for item in answer.failed_chat_list}
    errors |= {item.external_userid: item.errcode for item in answer.customer}
    return [(item, _REFUSED if errors.get(item) else _DONE, errors.get(item, 0)) for item in named]


def _items_found(action: Action, made: Made) -> list[tuple[str, End, int]]:
    found = made.items
    if found is None:
        return []
    return [(item, End("done", "settled_made") if item in found else _NOT_TAKEN, 0) for item in _named(action)]
