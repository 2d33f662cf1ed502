"""What becomes of an action: decided here alone, from the action, what happened to it so far, and the error table.

Whatever happens, an action ends in exactly one of the closed set of ends, and nothing that may have been carried out is
repeated unless a repeat is harmless. What makes something new is followed by ``settle`` when its answer is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from siyu.events import Action, ActionStatus
from siyu.wecom.errors import ErrorTable

_TRANSPORT_DELAY_MS = 250
_TRANSPORT_DELAY_MAX_MS = 5_000

DETAILS: dict[str, str] = {
    "ok": "WeCom accepted it",
    "already_welcomed": "41051: the welcome had been delivered, or the chat had started",
    "already_sent": "95033: the message with this id had been sent",
    "code_expired": "41050: the welcome code was no longer valid",
    "deadline_passed": "the deadline passed before a call succeeded",
    "held_too_long": "no deadline, and it could not be called within the lane's longest hold",
    "endpoint_not_allowed": "not a documented endpoint",
    "malformed": "the record is no action; it lies in dlq.executor",
    "duplicate": "the record brought an action that is known; the action's own outcome is under its own id",
    "staff_cooling": "the ban guard lets the staff member rest",
    "staff_stopped": "the ban guard stopped the staff member until a person lifts it",
    "campaign_stopped": "the ban guard stopped the campaign",
    "corp_cooling": "the ban guard lets the corp rest",
    "corp_stopped": "the ban guard stopped the corp until a person lifts it",
    "corp_unknown": "the corps file does not name the corp",
    "payload_malformed": "the payload is not a JSON object",
    "refused": "WeCom refused this item for good",
    "not_a_customer": "84061: there is no such relationship",
    "restart_paging": "the paging cursor is no longer valid",
    "retries_used_up": "WeCom was busy, or refused for concurrency, at every try",
    "token_refused": "WeCom refused the renewed token too",
    "fix_needed": "a bug or a wrong configuration",
    "human_needed": "an administrator has to act",
    "unknown_errcode": "WeCom answered with a code that is not documented",
    "outcome_unknown": "a write may or may not have happened; no answer came before the deadline",
    "response_too_large": "the answer is larger than an outcome may be",
    "contradictory": "fields exclude each other, or one that is needed is missing",
    "payload_too_large": "the payload is larger than this endpoint takes",
    "no_recipients": "the send names nobody: neither customers nor groups",
    "too_many_recipients": "the send names more than one action may",
    "options_malformed": "the executor's own options under the payload's key siyu cannot be read",
    "no_sender": "done as asked, without a sender: WeCom chose who sends",
    "partly_sent": "some chunks were accepted and some were not; each has its outcome",
    "settled_made": "no answer came, but WeCom's own record shows that the call was carried out",
    "settled_by_person": "no answer came; a person said what became of it",
    "not_taken": "no answer came, and WeCom's own record of the call does not name this item",
    "not_sendable": "WeCom's fail_list: this person or group cannot be sent to",
    "delivered": "send result 1: it was sent",
    "not_a_friend": "send result 2: the customer is not a friend any more",
    "cap_reached": "send result 3: the customer had got as many mass messages as may be",
    "unconfirmed": "not sent to this person when we stopped looking, or when it was cancelled",
    "harvest_impossible": "WeCom refuses to tell what became of the message",
    "reminders_used_up": "41094: three reminders of this message in 24 h",
    "operator_cancelled": "an operator took it back",
    "person_suppressed": "the person must not be contacted",
    "content_blocked": "the content linter did not let it through",
    "call_failed": "the chunk this person belongs to was not accepted; the chunk's outcome says why",
}
"""Every value of ``ActionOutcome.detail``."""


class Attempts(msgspec.Struct, frozen=True):
    """What happened to an action so far."""

    calls: int = 0
    errcode: int = 0
    """Of the last answer."""
    tries: int = 0
    """Calls that ended under retry or slow."""
    transport_failures: int = 0
    token_renewed: bool = False
    grown_up: bool = False
    """The one extra try of a young action is used."""
    in_doubt: bool = False
    """A call went out without an answer, and no later answer has settled it."""


@dataclass(frozen=True)
class End:
    """The action is over."""

    status: ActionStatus
    detail: str


@dataclass(frozen=True)
class Again:
    """Call again after ``delay_ms`` of wall time, unless the deadline comes first."""

    delay_ms: int


@dataclass(frozen=True)
class RenewToken:
    """The token that was used is dead; call again with another."""


@dataclass(frozen=True)
class Freeze:
    """Nobody may call this scope for ``wait_ms`` (0: until its window ends); then call again."""

    wait_ms: int


@dataclass(frozen=True)
class SlowDown:
    """Fewer calls at the same time in this scope; call again after ``delay_ms``."""

    delay_ms: int


Decision = End | Again | RenewToken | Freeze | SlowDown


def is_late(action: Action, now_ms: int) -> bool:
    """Whether the call must not start any more (business time)."""
    return 0 < action.deadline_ms < now_ms


def gave_up(attempts: Attempts, effect: Literal["read", "write"], *, held: bool) -> End:
    """The end of an action whose time is over; ``held``: the lane's longest hold, not the deadline."""
    if attempts.in_doubt and effect == "write":
        return End("failed", "outcome_unknown")
    return End("expired", "held_too_long" if held else "deadline_passed")


def answered(
    action: Action, attempts: Attempts, errcode: int, table: ErrorTable, now_ms: int, jitter: float
) -> tuple[Attempts, Decision]:
    """WeCom answered. ``jitter`` in [0, 1) spreads those who were refused together."""
    doubted = attempts.in_doubt
    attempts = msgspec.structs.replace(attempts, calls=attempts.calls + 1, errcode=errcode, in_doubt=False)
    rule = table.rule(errcode, action.endpoint)
    end = End(rule.status, rule.detail)
    match rule.action:
        case "ok":
            return attempts, End("done", "ok")
        case "token":
            if attempts.token_renewed:
                return attempts, end
            return msgspec.structs.replace(attempts, token_renewed=True, in_doubt=doubted), RenewToken()
        case "retry" | "slow":
            attempts = msgspec.structs.replace(attempts, tries=attempts.tries + 1, in_doubt=doubted)
            if attempts.tries >= rule.tries and not rule.until_deadline:
                return attempts, End("failed", "outcome_unknown") if doubted else end
            if rule.action == "slow":
                return attempts, SlowDown(rule.delay_ms + int(jitter * (rule.delay_max_ms - rule.delay_ms)))
            return attempts, Again(rule.delay_ms if rule.until_deadline else rule.delay_ms << (attempts.tries - 1))
        case "wait":
            return msgspec.structs.replace(attempts, in_doubt=doubted), Freeze(rule.wait_ms)
        case "state" if now_ms - action.created_ms < rule.young_ms and not attempts.grown_up:
            return msgspec.structs.replace(attempts, grown_up=True, in_doubt=doubted), Again(rule.delay_ms)
        case _:
            # An earlier call without an answer may have used the code up: then "expired" proves nothing.
            if doubted and end.status == "expired":
                return attempts, End("failed", "outcome_unknown")
            return attempts, end


def unanswered(attempts: Attempts, *, sent: bool, jitter: float) -> tuple[Attempts, Decision]:
    """No usable answer; ``sent``: the request may have been carried out. Repeat-safe, so: again, until the deadline."""
    failures = attempts.transport_failures
    attempts = msgspec.structs.replace(
        attempts,
        calls=attempts.calls + (1 if sent else 0),
        transport_failures=failures + 1,
        in_doubt=attempts.in_doubt or sent,
    )
    return attempts, Again(silence_ms(failures + 1, jitter))


def silence_ms(failures: int, jitter: float) -> int:
    """How long to wait after so many calls in a row without an answer."""
    delay = min(_TRANSPORT_DELAY_MAX_MS, _TRANSPORT_DELAY_MS << min(failures - 1, 10))
    return int(delay * (0.5 + jitter / 2))
