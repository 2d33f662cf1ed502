"""A shard's calls for the tokens it owns. They stand in no lane, and are admitted, reserved and started like every
other call."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from services.executor.governor import Claim, Governor
from services.executor.journal import Message
from services.executor.pending import Pending, Permit
from services.executor.process import Process
from services.executor.site import Timeouts
from services.executor.token_owner import TokenOwner
from services.executor.token_table import TOPIC, key_of
from siyu.events import WecomToken
from siyu.ops.clock import wall_ms
from siyu.ops.corps import Corp
from siyu.ops.logging import get_logger
from siyu.wecom.client import Answer, NotSent, Result
from siyu.wecom.endpoints import GETTOKEN

_FRESH_MS = 5_000


class Owner(Protocol):
    """The shard."""

    governor: Governor
    timeouts: Timeouts

    @property
    def pending(self) -> Pending:
        """What the next transaction writes."""
        ...

    @property
    def running(self) -> bool:
        """Whether calls may start."""
        ...

    def wake(self) -> None:
        """Has the shard look again."""
        ...

    def fail(self) -> None:
        """The shard cannot go on."""
        ...


class TokenCalls:
    """Of the corps whose tokens are this shard's."""

    def __init__(self, shard: Owner, process: Process, owned: list[Corp]) -> None:
        self._shard = shard
        self._process = process
        self._permits: list[Permit] = []
        self._stopped = asyncio.Event()
        self._kept: asyncio.Task[None] | None = None
        self._owner = TokenOwner(
            owned,
            process.tokens,
            process.ring,
            process.token_rules,
            fetch=self._fetch,
            publish=self._publish,
            errors=process.error_table,
            wall_ms=wall_ms,
            nonce=process.nonce,
            may_ask=lambda: process.fresh(TOPIC, _FRESH_MS),
            renewed=lambda corp_id, result: process.metrics.token_renewals.labels(corp_id, result).inc(),
        )

    def begin(self) -> None:
        """Renews from now on."""
        self._kept = asyncio.create_task(self._owner.run(self._stopped))
        self._kept.add_done_callback(self._ended)

    async def close(self) -> None:
        """Renews no more."""
        self._stopped.set()
        if self._kept is not None:
            self._kept.cancel()
            await asyncio.gather(self._kept, return_exceptions=True)

    def grant(self, now_ms: int) -> None:
        """Reserves the calls that wait, and starts those whose reservation is committed."""
        shard = self._shard
        for permit in list(self._permits):
            if permit.start_by is None:
                if shard.running and shard.governor.reserve(permit.path, "welcome", now_ms) == 0:
                    self._permits.remove(permit)
                    shard.pending.permits.append(permit)
            elif permit.granted.cancelled() or time.monotonic() > permit.start_by:
                shard.governor.give_back(permit.path, now_ms)
                permit.start_by = None
                if permit.granted.cancelled():
                    self._permits.remove(permit)
            elif shard.running and shard.governor.begin(permit.path, "welcome", now_ms):
                self._permits.remove(permit)
                permit.granted.set_result(None)

    def reserved(self, permit: Permit, start_by: float) -> None:
        """A call's reservation is committed; it may start until then (monotonic seconds)."""
        permit.start_by = start_by
        self._permits.append(permit)

    async def _fetch(self, corp: Corp) -> Result:
        process, governor = self._process, self._shard.governor
        timeout_ms = process.token_timeout_ms
        path = governor.path(Claim(corp.corp_id, corp.agent_id, GETTOKEN))
        permit = Permit(path, asyncio.get_running_loop().create_future())
        self._shard.timeouts.add(timeout_ms)
        self._permits.append(permit)
        self._shard.wake()
        left = True

        def may_start() -> bool:
            in_time = time.monotonic() <= (permit.start_by or 0.0) and process.clock.now_ms() <= path.start_by_ms
            return in_time and self._shard.running

        try:
            await permit.granted
            result = await process.client.get_token(corp.corp_id, corp.secret, timeout_ms / 1000, may_start)
            now_ms = process.clock.now_ms()
            left = not (isinstance(result, NotSent) and result.reason == "too_late")
            process.observe(GETTOKEN, result)
            rule = process.error_table().rule(result.errcode, GETTOKEN) if isinstance(result, Answer) else None
            if rule is not None and rule.action == "wait":
                governor.freeze(path, now_ms, rule.wait_ms)
            return result
        finally:
            if permit.granted.done() and not permit.granted.cancelled():
                if left:
                    governor.finish(path, process.clock.now_ms())
                else:
                    governor.give_back(path, process.clock.now_ms(), began=True)
            elif permit.start_by is None and permit in self._permits:
                self._permits.remove(permit)
            self._shard.timeouts.remove(timeout_ms)

    async def _publish(self, records: list[WecomToken]) -> None:
        pending = self._shard.pending
        for record in records:
            pending.messages.append(Message(TOPIC, key_of(record), self._process.codec.encode(record)))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pending.written.append(written)
        self._shard.wake()
        await written

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            get_logger().error("token_owner_failed", exc_info=task.exception())
            self._shard.fail()
