"""Takes one action to its end: waits for its time, its token and its turn, calls WeCom, and follows the domain's
decisions. Always returns an outcome, unless it is told to stop before the call was made: then :class:`Abandoned`, and
the action is as untouched as if it had never been taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from services.executor import domain
from services.executor.domain import Again, Attempts, Decision, End, Freeze, RenewToken, SlowDown
from services.executor.metrics import ExecutorMetrics
from services.executor.tokens import Tokens, TokenUnavailable
from siyu.events import Action, ActionOutcome
from siyu.ops.clock import Clock, wall_ms
from siyu.ops.corps import Corp
from siyu.wecom.client import Answer, NotSent, Result, TooLarge, WecomClient
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN, Endpoint, quota_scope
from siyu.wecom.errors import ErrorTable
from siyu.wecom.limits import Limiter

_NO_DEADLINE = 1 << 62
_TOKEN_TIMEOUT_SECONDS = 5.0
_RECHECK_MS = 250
"""Business time may run at any speed, so a wait looks at the deadline this often."""


class Abandoned(Exception):
    """Stopped between two calls; nothing is under way."""


@dataclass(frozen=True)
class Patience:
    """How a lane treats its actions."""

    call_timeout_seconds: float
    hold_seconds: float
    """The longest an action is held in memory."""


class Ticket:
    """One action's way through the performer, seen from outside."""

    def __init__(self) -> None:
        self.calling = False
        """A call is under way: it must be awaited, not cancelled."""
        self.stopping = False
        """Begin no further call."""


class Performer:
    """Performs actions of all lanes of the process."""

    def __init__(
        self,
        *,
        client: WecomClient,
        corps: dict[str, Corp],
        limiter: Limiter,
        error_table: Callable[[], ErrorTable],
        clock: Clock,
        metrics: ExecutorMetrics,
        random: Random,
    ) -> None:
        self._client = client
        self._corps = corps
        self._limiter = limiter
        self._error_table = error_table
        self._clock = clock
        self._metrics = metrics
        self._random = random
        self._known_codes = error_table().codes
        self.tokens = Tokens(
            corps,
            self._fetch_token,
            error_table,
            renewed=lambda corp_id, result: metrics.token_renewals.labels(corp_id, result).inc(),
        )

    async def perform(self, action: Action, patience: Patience, ticket: Ticket) -> ActionOutcome:
        """The outcome. Raises Abandoned when ``ticket.stopping`` comes before the end."""
        taken = time.monotonic()
        end = domain.refusal(
            action, ENDPOINTS, self._corps.keys(), int(patience.hold_seconds * 1000), self._clock.now_ms()
        )
        attempts, body = Attempts(), b""
        if end is None:
            endpoint = ENDPOINTS[action.endpoint]
            while end is None:
                held = time.monotonic() - taken > patience.hold_seconds
                if held or domain.is_late(action, self._clock.now_ms()):
                    end = domain.gave_up(attempts, endpoint.effect, held=held)
                    break
                if ticket.stopping:
                    raise Abandoned
                if self._clock.now_ms() < action.not_before_ms:
                    await self._pause(action, min(action.not_before_ms - self._clock.now_ms(), _RECHECK_MS))
                    continue
                attempts, decision, body = await self._attempt(action, endpoint, attempts, patience, taken, ticket)
                end = await self._follow(action, decision)
        return _outcome(action, end, attempts, body)

    async def _attempt(
        self, action: Action, endpoint: Endpoint, attempts: Attempts, patience: Patience, taken: float, ticket: Ticket
    ) -> tuple[Attempts, Decision, bytes]:
        try:
            token = await asyncio.wait_for(self.tokens.get(action.corp_id), _RECHECK_MS / 1000)
        except TimeoutError:
            return attempts, Again(0), b""  # gettoken goes on; the loop in perform looks at the deadline
        except TokenUnavailable as error:
            if error.final:
                attempts = msgspec.structs.replace(attempts, errcode=error.errcode)
                return attempts, End("failed", "token_unavailable"), b""
            return attempts, Again(int(error.retry_in_seconds * 1000)), b""

        def wanted() -> bool:
            late = domain.is_late(action, self._clock.now_ms())
            return not (late or ticket.stopping or time.monotonic() - taken > patience.hold_seconds)

        scope = quota_scope(action.corp_id, endpoint.path)
        if not await self._limiter.enter(scope, action.deadline_ms or _NO_DEADLINE, wanted):
            return attempts, Again(0), b""  # the loop in perform says why
        ticket.calling = True
        try:
            result = await self._client.call(endpoint, token, action.payload, patience.call_timeout_seconds)
        finally:
            ticket.calling = False
            self._limiter.leave(scope)
        self._observe(endpoint.path, result)
        jitter = self._random.random()
        if isinstance(result, Answer):
            attempts, decision = domain.answered(
                action, attempts, result.errcode, self._error_table(), self._clock.now_ms(), jitter
            )
            if isinstance(decision, RenewToken):
                self.tokens.refused(action.corp_id, token)
            return attempts, decision, result.body if endpoint.effect == "read" else b""
        if isinstance(result, TooLarge):
            attempts = msgspec.structs.replace(attempts, calls=attempts.calls + 1, in_doubt=False)
            return attempts, End("failed", "response_too_large"), b""
        attempts, decision = domain.unanswered(attempts, sent=not isinstance(result, NotSent), jitter=jitter)
        return attempts, decision, b""

    async def _follow(self, action: Action, decision: Decision) -> End | None:
        scope = quota_scope(action.corp_id, action.endpoint)
        match decision:
            case End():
                return decision
            case Again(delay_ms):
                await self._pause(action, delay_ms)
            case SlowDown(delay_ms):
                self._limiter.slow(scope)
                await self._pause(action, delay_ms)
            case Freeze(wait_ms):
                self._limiter.freeze(scope, wait_ms)
            case RenewToken():
                pass
        return None

    async def _pause(self, action: Action, delay_ms: int) -> None:
        """Waits, but no longer than until the deadline."""
        ends = time.monotonic() + delay_ms / 1000
        while (left := ends - time.monotonic()) > 0:
            now_ms = self._clock.now_ms()
            if domain.is_late(action, now_ms):
                return
            until_late = (action.deadline_ms - now_ms + 1) / 1000 if action.deadline_ms else left
            await asyncio.sleep(min(left, until_late, _RECHECK_MS / 1000))

    async def _fetch_token(self, corp: Corp) -> Result:
        scope = quota_scope(corp.corp_id, GETTOKEN)
        await self._limiter.enter(scope, 0, lambda: True)
        try:
            result = await self._client.get_token(corp.corp_id, corp.secret, _TOKEN_TIMEOUT_SECONDS)
        finally:
            self._limiter.leave(scope)
        self._observe(GETTOKEN, result)
        if isinstance(result, Answer) and self._error_table().rule(result.errcode, GETTOKEN).action == "wait":
            self._limiter.freeze(scope, self._error_table().rule(result.errcode, GETTOKEN).wait_ms)
        return result

    def _observe(self, path: str, result: Result) -> None:
        match result:
            case Answer():
                label = str(result.errcode) if result.errcode in self._known_codes else "other"
            case TooLarge():
                label = "too_large"
            case NotSent():
                label = "not_sent"
            case _:
                label = "unknown"
        self._metrics.calls.labels(path, label).observe(result.seconds)


def internal_error(action: Action) -> ActionOutcome:
    """The end of an action that met a bug of ours: closed, and for a person to look at."""
    return _outcome(action, End("failed", "internal_error"), Attempts(), b"")


def _outcome(action: Action, end: End, attempts: Attempts, body: bytes) -> ActionOutcome:
    return ActionOutcome(
        action_id=action.action_id,
        lane=action.lane,
        corp_id=action.corp_id,
        endpoint=action.endpoint,
        subject=action.subject,
        staff_id=action.staff_id,
        customer_id=action.customer_id,
        status=end.status,
        errcode=attempts.errcode,
        detail=end.detail,
        calls=attempts.calls,
        reason=action.reason,
        caused_by=action.caused_by,
        created_ms=action.created_ms,
        deadline_ms=action.deadline_ms,
        trigger_received_at_ms=action.trigger_received_at_ms,
        finished_at_ms=wall_ms(),
        request=action.payload,
        response=body,
    )
