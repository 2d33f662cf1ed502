"""Delivers callbacks as the platform does: late, shuffled, twice at times, three times when refused, then never.

Every delivery of one callback carries the same plaintext in a new envelope (nonce, random bytes, signature). Anything
but a 200 within the time limit counts as refused (fact sheet 1.7). What may be under way at once is bounded.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

import httpx2

from simulator.apps import App
from simulator.callbacks import envelope
from simulator.metrics import SimulatorMetrics
from simulator.world.corp import Callback
from siyu.ops.clock import wall_ms
from siyu.ops.logging import get_logger
from siyu.wecom.crypto import CallbackCrypto


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How deliveries go wrong. Seconds of wall time."""

    seed: int = 1
    duplicate_share: float = 0.10
    shuffle_s: float = 3.0
    timeout_s: float = 5.0
    total: int = 3
    retry_s: tuple[float, ...] = (5.0, 10.0)
    """Waits before the second, third … delivery; the last one repeats. The real spacing is undocumented."""
    concurrency: int = 32
    duplicate_within_s: float = 5.0
    """A duplicate comes at most this long after the first delivery."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What the seed has in store for one callback."""

    delay_s: float
    duplicate_delay_s: float | None
    agent_first: bool


def fate_of(policy: DeliveryPolicy, number: int) -> Fate:
    """The fate of callback ``number``: depends on the seed alone, whatever else happens."""
    rng = random.Random(f"{policy.seed}|delivery|{number}")
    delay = rng.uniform(0, policy.shuffle_s)
    agent_first = rng.random() < 0.5
    twice = rng.random() < policy.duplicate_share
    return Fate(delay, delay + rng.uniform(0, policy.duplicate_within_s) if twice else None, agent_first)


@dataclass(slots=True)
class DeliveryCounts:
    """What became of callbacks. ``duplicates``: second copies that were sent on purpose and accepted."""

    submitted: int = 0
    delivered: int = 0
    dropped: int = 0
    duplicates: int = 0
    attempts: int = 0

    @property
    def waiting(self) -> int:
        return self.submitted - self.delivered - self.dropped


@dataclass(slots=True)
class _Copy:
    app: App
    message: bytes
    agent_first: bool
    open_sends: int = 0
    accepted: bool = False


class Deliverer:
    """Sends what it is given; :attr:`counts` says what became of it. One per process, inside one event loop."""

    def __init__(
        self,
        *,
        apps: Iterable[App],
        policy: DeliveryPolicy,
        metrics: SimulatorMetrics,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._apps = [app for app in apps if app.callback_url]
        self._cryptos = {
            app: CallbackCrypto(app.callback_token, app.callback_aes_key, app.corp_id) for app in self._apps
        }
        self._policy = policy
        self._metrics = metrics
        self._log = get_logger()
        self._client = httpx2.AsyncClient(
            transport=transport,
            timeout=None,
            limits=httpx2.Limits(max_connections=policy.concurrency, max_keepalive_connections=policy.concurrency),
            trust_env=False,
        )
        self._slots = asyncio.Semaphore(policy.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._open_sends = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.counts = DeliveryCounts()
        metrics.waiting.set_function(lambda: self.counts.waiting)

    def send(self, callback: Callback) -> None:
        """Takes one event: every app that is told of it gets a copy, whose deliveries follow by its fate."""
        for app in self._apps:
            wanted = not app.events or callback.event in app.events
            if app.corp_id != callback.corp_id or not wanted or callback.only_agent not in ("", app.agent_id):
                continue
            fate = fate_of(self._policy, self.counts.submitted)
            self.counts.submitted += 1
            copy = _Copy(app, callback.content, fate.agent_first)
            self._plan(copy, fate.delay_s, attempt=1, duplicate=False)
            if fate.duplicate_delay_s is not None:
                self._plan(copy, fate.duplicate_delay_s, attempt=1, duplicate=True)

    @property
    def idle(self) -> bool:
        """Nothing is under way or waiting for another try."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Until everything submitted was accepted or dropped, duplicates included."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stops at once; what was not delivered is not."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _plan(self, copy: _Copy, delay_s: float, *, attempt: int, duplicate: bool) -> None:
        copy.open_sends += 1
        self._open_sends += 1
        self._idle.clear()
        timer: asyncio.TimerHandle

        def begin() -> None:
            self._timers.discard(timer)
            task = asyncio.create_task(self._send(copy, attempt, duplicate))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

        timer = asyncio.get_running_loop().call_later(delay_s, begin)
        self._timers.add(timer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours, not of the receiver: without this the scenario would wait for ever without a word.
            self._log.error("delivery broke", exc_info=error)

    async def _send(self, copy: _Copy, attempt: int, duplicate: bool) -> None:
        async with self._slots:
            result = await self._post(copy)
        self.counts.attempts += 1
        self._metrics.deliveries.labels(result).inc()
        if result == "accepted":
            if not copy.accepted:
                copy.accepted = True
                self.counts.delivered += 1
            if duplicate:
                self.counts.duplicates += 1
        elif not duplicate and attempt < self._policy.total:
            wait = self._policy.retry_s[min(attempt - 1, len(self._policy.retry_s) - 1)]
            self._plan(copy, wait, attempt=attempt + 1, duplicate=False)
        copy.open_sends -= 1
        if not copy.open_sends and not copy.accepted:
            self.counts.dropped += 1
            self._metrics.dropped.inc()
            self._log.warning("callback dropped", corp_id=copy.app.corp_id, attempt=attempt, reason=result)
        self._open_sends -= 1
        if not self._open_sends:
            self._idle.set()

    async def _post(self, copy: _Copy) -> str:
        app = copy.app
        sealed = self._cryptos[app].encrypt(
            copy.message,
            timestamp=str(wall_ms() // 1000),
            nonce=str(random.SystemRandom().randrange(10**9, 10**10)),
        )
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                response = await self._client.post(
                    app.callback_url,
                    params={
                        "msg_signature": sealed.msg_signature,
                        "timestamp": sealed.timestamp,
                        "nonce": sealed.nonce,
                    },
                    content=envelope(app.corp_id, app.agent_id, sealed, agent_first=copy.agent_first),
                    headers={"Content-Type": "text/xml"},
                )
        except TimeoutError:
            return "timeout"
        except httpx2.HTTPError:
            return "unreachable"
        return "accepted" if response.status_code == 200 else "refused"
