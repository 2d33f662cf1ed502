"""Actions under way, as pure machines. Whatever happens, and wherever the process dies:

* an action ends in exactly one outcome, published in the same transaction as the record that says so;
* a call that makes something is never repeated before it is known what became of the one before it;
* a machine can be restored from its committed records alone, once :attr:`Work.kept` says so.

The shard drives a machine: it looks at :meth:`Work.asks` when :meth:`Work.due_ms` has come, takes an ask through the
gates and the governor, says :meth:`Work.going_out`, commits :meth:`Work.records`, and only then lets the call leave.
Times are business time in epoch ms unless a name says wall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from services.executor.domain import End
from services.executor.governor import Claim
from services.executor.timings import Timings
from siyu.events import Action, ActionOutcome, ActionStatus, Lane, LedgerEntry
from siyu.events.types import LedgerState
from siyu.wecom.client import Result
from siyu.wecom.endpoints import ENDPOINTS
from siyu.wecom.errors import ErrorTable

MASS_SEND = "externalcontact/add_msg_template"


@dataclass(frozen=True)
class Ask:
    """A call that should be made. The same ask comes again until it is out."""

    key: str
    """Unique in the shard."""
    endpoint: str
    payload: bytes
    """Empty for a chunk of a send: :meth:`Work.going_out` gives it with the people it has then."""
    lane: Lane
    deadline_ms: int
    """The call must not start later; 0: none."""
    claim: Claim
    durable: bool
    """A ledger record saying that it goes out must be committed before it leaves."""
    timeout_ms: int
    """Of the HTTP call, wall time."""


@dataclass(frozen=True)
class Verdict:
    """What an answer means for others."""

    freeze: bool = False
    """Nobody calls this scope for ``freeze_ms``; 0: until its window ends."""
    freeze_ms: int = 0
    slow: bool = False
    renew_token: bool = False
    errcode: int = 0


@dataclass(frozen=True)
class Effects:
    """What follows from one step. Outcomes go into one transaction with :meth:`Work.records`."""

    outcomes: tuple[ActionOutcome, ...] = ()
    verdict: Verdict | None = None


class RequestLimits(Protocol):
    """The part of the limits in force that says how much one call may carry."""

    def request_limit(self, corp_id: str, endpoint: str, field: str = "") -> int | None:
        """The most ids the list ``field`` of one request may have; None when nothing is known."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What a machine may look at. Everything is asked anew each time: all of it changes while an action waits."""

    error_table: Callable[[], ErrorTable]
    limits: Callable[[], RequestLimits]
    rules: Callable[[], Timings]
    suppressed: Callable[[str, str], bool]
    """Of a corp and a customer: must not be contacted."""
    agent_id: Callable[[str], str]
    """Of a corp: the app we call as."""
    known_message: Callable[[str, str], bool]
    """Of a corp and a platform's id (``msgid``, ``config_id``, ``moment_id``): another of our calls made it. It has to
    know what a machine's newest records name, committed or not."""
    pace: Callable[[], float] = lambda: 1.0
    """Business ms in a ms of wall time: 1 in production, more in a world that runs faster."""


class Work(Protocol):
    """One action under way."""

    @property
    def action(self) -> Action:
        """Of a send: without its list of people."""

    @property
    def ended(self) -> bool:
        """Nothing more to do; its outcome is published."""

    @property
    def kept(self) -> bool:
        """Everything about it stands in ledger records: once these are committed, its source may be forgotten."""

    @property
    def in_doubt(self) -> int:
        """Calls that may have made something, and it is not known yet."""

    def asks(self, now_ms: int) -> list[Ask]:
        """What should be called now and is not out yet."""

    def due_ms(self) -> int:
        """When ``asks`` and ``past`` are to be looked at again; a time past means now, 0 that nothing is scheduled."""

    def going_out(self, ask: Ask, now_ms: int, admission: bytes, limits_revision: str) -> Ask | None:
        """It was admitted: the ask as it leaves once ``records`` are committed. None: it must not leave (nobody is left
        to send it to, or something happened while it queued), so give the admission back and look at ``asks`` and
        ``past`` again."""

    def not_sent(self, ask: Ask, now_ms: int) -> None:
        """It went out of the queue, but certainly did not leave."""

    def answered(self, ask: Ask, result: Result, now_ms: int, wall_ms: int, jitter: float) -> Effects:
        """What the call came to. ``jitter`` in [0, 1)."""

    def past(self, now_ms: int, wall_ms: int) -> Effects:
        """What follows from time alone: deadlines, horizons, outcomes that come step by step."""

    def stop(self, status: ActionStatus, detail: str, now_ms: int, wall_ms: int) -> Effects:
        """Cancelled, suppressed, blocked: ends what is neither out nor in doubt, the rest once that is settled.
        ``detail`` is one of ``DETAILS``."""

    def settle_by_person(
        self, verdict: Literal["done", "not_done"], now_ms: int, wall_ms: int, action_id: str = ""
    ) -> Effects:
        """A person says what became of what is in doubt; of a send, ``action_id`` may name one chunk."""

    def records(self, wall_ms: int) -> list[LedgerEntry]:
        """What changed since the last call and has to be kept."""


class Memory(msgspec.Struct, frozen=True, tag_field="kind"):
    """Base of what a machine keeps of itself in :attr:`LedgerEntry.memory`."""


def is_open(entry: LedgerEntry) -> bool:
    """Whether there is something left to do: a machine is restored from the open entries of its action (its own, and
    those that name it as their parent)."""
    return entry.state != "ended"


def json_object(payload: bytes) -> dict[str, Any] | None:
    """The payload as an object, None if it is none."""
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None


def is_send(action: Action) -> bool:
    """Whether a machine for many people takes it."""
    return action.endpoint == MASS_SEND


def begin(action: Action, around: Surroundings, now_ms: int) -> Work | End:
    """A machine for a new action, or why it ends without a call."""
    from services.executor import sends, single

    if action.endpoint not in ENDPOINTS:
        return End("rejected", "endpoint_not_allowed")
    if is_send(action):
        return sends.begin(action, around, now_ms)
    return single.begin(action, around, now_ms)


def restore(entries: Sequence[LedgerEntry], around: Surroundings, now_ms: int) -> Work:
    """The machine of one action from its open entries, in any order. What had gone out and has no answer is in doubt.

    Raises LedgerDamaged when they cannot be read: then nothing may be repeated, and a person has to look.
    """
    from services.executor import sends, single

    if any(entry.endpoint == MASS_SEND for entry in entries):
        return sends.restore(entries, around, now_ms)
    return single.restore(entries, around, now_ms)


class LedgerDamaged(Exception):
    """Records that no machine can be made of. The message names the action and what is wrong, never their content."""


def outcome_of(
    action: Action,
    end: End,
    wall_ms: int,
    *,
    errcode: int = 0,
    calls: int = 0,
    message_id: str = "",
    request: bytes | None = None,
    response: bytes = b"",
    changes: Mapping[str, Any] | None = None,
) -> ActionOutcome:
    """The outcome of an action; ``changes`` for one of its parts."""
    outcome = ActionOutcome(
        action_id=action.action_id,
        lane=action.lane,
        corp_id=action.corp_id,
        endpoint=action.endpoint,
        subject=action.subject,
        staff_id=action.staff_id,
        customer_id=action.customer_id,
        status=end.status,
        errcode=errcode,
        detail=end.detail,
        calls=calls,
        reason=action.reason,
        caused_by=action.caused_by,
        created_ms=action.created_ms,
        deadline_ms=action.deadline_ms,
        trigger_received_at_ms=action.trigger_received_at_ms,
        finished_at_ms=wall_ms,
        request=action.payload if request is None else request,
        response=response,
        campaign_id=action.campaign_id,
        parent_id="",
        message_id=message_id,
    )
    return msgspec.structs.replace(outcome, **changes) if changes else outcome


def entry_of(
    action: Action,
    state: LedgerState,
    wall_ms: int,
    *,
    action_id: str = "",
    parent_id: str = "",
    end: End | None = None,
    errcode: int = 0,
    calls: int = 0,
    message_id: str = "",
    due_ms: int = 0,
    admitted_at_ms: int = 0,
    limits_revision: str = "",
    admission: bytes = b"",
    memory: bytes = b"",
) -> LedgerEntry:
    """A ledger record about an action, or about one of its parts (``action_id``, ``parent_id``)."""
    return LedgerEntry(
        action_id=action_id or action.action_id,
        parent_id=parent_id,
        lane=action.lane,
        corp_id=action.corp_id,
        endpoint=action.endpoint,
        subject=action.subject,
        staff_id=action.staff_id,
        customer_id=action.customer_id,
        campaign_id=action.campaign_id,
        reason=action.reason,
        caused_by=action.caused_by,
        state=state,
        status=end.status if end else "",
        detail=end.detail if end else "",
        errcode=errcode,
        calls=calls,
        message_id=message_id,
        created_ms=action.created_ms,
        not_before_ms=action.not_before_ms,
        deadline_ms=action.deadline_ms,
        due_ms=due_ms,
        updated_at_ms=wall_ms,
        admitted_at_ms=admitted_at_ms,
        limits_revision=limits_revision,
        admission=admission,
        memory=memory,
    )


def action_of(entry: LedgerEntry, payload: bytes, trigger_received_at_ms: int) -> Action:
    """The action a record is about."""
    return Action(
        action_id=entry.action_id,
        lane=entry.lane,
        corp_id=entry.corp_id,
        endpoint=entry.endpoint,
        subject=entry.subject,
        staff_id=entry.staff_id,
        customer_id=entry.customer_id,
        payload=payload,
        reason=entry.reason,
        caused_by=entry.caused_by,
        created_ms=entry.created_ms,
        not_before_ms=entry.not_before_ms,
        deadline_ms=entry.deadline_ms,
        trigger_received_at_ms=trigger_received_at_ms,
        campaign_id=entry.campaign_id,
    )
