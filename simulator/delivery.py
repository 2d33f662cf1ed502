"""Delivers callbacks as the platform does: late, shuffled, twice at times, three times when refused, then never.

Every delivery of one callback carries the same plaintext in a new envelope (nonce, random bytes, signature). What
counts as refused, how often it is tried, what is lost without a trace: :class:`DeliveryPolicy` (fact sheet 1.7, 6.2).
However many callbacks wait, they are rows of one heap; tasks, timers and connections are as many as may be under way.

Waits follow the clock that is given, so that a day in an hour has its retries where a day would. The time limit of one
request is wall time whatever the clock: five seconds at ×1000 would be five milliseconds, which tests the machine and
not the receiver.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from simulator.apps import NOT_FOR_ORDINARY_APPS, App
from simulator.callbacks import envelope, json_envelope, wants_json
from simulator.journal import Delivery, Journal
from simulator.metrics import SimulatorMetrics
from simulator.sender import Answer, Posts, Sender, Target
from simulator.world.corp import Callback
from siyu.ops.clock import wall_ms
from siyu.ops.logging import get_logger
from siyu.wecom.crypto import CallbackCrypto, SealedMessage

# The clock may change its pace or jump at any time, so no wait is slept through in one go. Wall seconds.
_LOOK_S = 0.02
_UNIT = float(1 << 64)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How deliveries go wrong. Seconds of the clock but for ``timeout_s``."""

    seed: int = 1
    duplicate_share: float = 0.10
    shuffle_s: float = 3.0
    timeout_s: float = 5.0
    """From connecting to the answer's last byte, wall time."""
    total: int = 3
    """Deliveries of one callback; "three in total" may also be read as 1 + 3 (fact sheet 1.7)."""
    retry_s: tuple[float, ...] = (5.0, 10.0)
    """Waits before the second, third … delivery; the last one repeats. The real spacing is undocumented."""
    concurrency: int = 32
    duplicate_within_s: float = 5.0
    """A duplicate comes at most this long after the first delivery."""
    retry_refused: bool = True
    """Whether a status other than 200 is tried again (D90238), or only no answer and no connection (D90930)."""
    lost_share: float = 0.0
    """Of all callbacks: never sent at all."""
    burst_s: float = 0.0
    """Callbacks are held back to the next whole multiple of this and come all at once; 0: they are not."""
    mute_after: int = 0
    """So many failed deliveries of one app within ``mute_window_s``, and the platform sends it nothing for ``mute_s``;
    what is due in that time is dropped. 0: it never gives an endpoint up. The real thresholds are undocumented."""
    mute_window_s: float = 60.0
    mute_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Fate:
    """What the seed has in store for one callback."""

    delay_s: float
    duplicate_delay_s: float | None
    agent_first: bool
    luck: float = 1.0
    """0 to 1: below the share that is to be lost, it is."""


def fate_of(policy: DeliveryPolicy, callback: bytes) -> Fate:
    """The fate of a callback: depends on the seed and on what it says, whatever else happens and in which order."""
    drawn = hashlib.blake2b(callback, digest_size=40, key=b"%d" % policy.seed).digest()
    late, twice, again, luck = (int.from_bytes(drawn[n : n + 8]) / _UNIT for n in (0, 8, 16, 24))
    delay_s = late * policy.shuffle_s
    duplicate = delay_s + again * policy.duplicate_within_s if twice < policy.duplicate_share else None
    return Fate(delay_s, duplicate, drawn[32] < 128, luck)


@dataclass(slots=True)
class DeliveryCounts:
    """What became of callbacks. ``duplicates``: second copies that were sent on purpose and accepted."""

    submitted: int = 0
    delivered: int = 0
    dropped: int = 0
    """Never accepted, for whatever reason."""
    duplicates: int = 0
    attempts: int = 0
    retries: int = 0
    """Second and later deliveries after a failed one."""
    lost: int = 0
    """Of the dropped ones: never sent at all."""
    muted: int = 0
    """Of the dropped ones: due while the platform had given the endpoint up."""

    @property
    def waiting(self) -> int:
        return self.submitted - self.delivered - self.dropped


class _Endpoint:
    """Where one app is told, and how it has fared lately."""

    __slots__ = ("_crypto", "_failures", "app", "json", "muted_until_s", "target")

    def __init__(self, app: App) -> None:
        self.app = app
        self.json = wants_json(app.callback_url)
        self.target = Target(app.callback_url, content_type="application/json" if self.json else "text/xml")
        self.muted_until_s = float("-inf")
        self._crypto = CallbackCrypto(app.callback_token, app.callback_aes_key, app.corp_id)
        self._failures: deque[float] = deque()

    def seal(self, content: bytes, *, agent_first: bool) -> tuple[str, bytes]:
        """A new envelope: query and body."""
        nonce = str(10**9 + int.from_bytes(os.urandom(8)) % (9 * 10**9))
        sealed = self._crypto.encrypt(content, timestamp=str(wall_ms() // 1000), nonce=nonce)
        return query_of(sealed), body_of(self.app, sealed, as_json=self.json, agent_first=agent_first)

    def failed(self, now_s: float, policy: DeliveryPolicy) -> bool:
        """Notes a failed delivery; True when that was one too many."""
        if not policy.mute_after:
            return False
        self._failures.append(now_s)
        while len(self._failures) > policy.mute_after or now_s - self._failures[0] > policy.mute_window_s:
            self._failures.popleft()
        if len(self._failures) < policy.mute_after:
            return False
        self._failures.clear()
        self.muted_until_s = now_s + policy.mute_s
        return True


def takes(app: App, callback: Callback) -> bool:
    """Whether an app of the corp is told of this."""
    wanted = callback.event in app.events if app.events else callback.event not in NOT_FOR_ORDINARY_APPS
    return wanted and callback.only_agent in ("", app.agent_id)


def query_of(sealed: SealedMessage) -> str:
    """The parameters of a delivery (fact sheet 1.3). All of them are letters and digits."""
    return f"msg_signature={sealed.msg_signature}&timestamp={sealed.timestamp}&nonce={sealed.nonce}"


def body_of(app: App, sealed: SealedMessage, *, as_json: bool, agent_first: bool) -> bytes:
    """The body of a delivery (fact sheet 1.3)."""
    wrap = json_envelope if as_json else envelope
    return wrap(app.corp_id, app.agent_id, sealed, agent_first=agent_first)


@dataclass(slots=True)
class _Told:
    """One callback and for how many apps it is not dropped."""

    callback: Callback
    apps: int


@dataclass(slots=True)
class _Copy:
    """One callback on its way to one app."""

    endpoint: _Endpoint
    told: _Told
    agent_first: bool
    entry: Delivery
    open_sends: int = 0
    accepted: bool = False
    muted: bool = False


class _Send(NamedTuple):
    """One delivery that is due at a time of the clock. A heap compares tuples fast, and no two serials are alike."""

    due_s: float
    serial: int
    copy: _Copy
    attempt: int
    duplicate: bool


class Deliverer:
    """Sends what it is given; :attr:`counts` says what became of it. One per process, inside one event loop."""

    def __init__(
        self,
        *,
        apps: Iterable[App],
        policy: DeliveryPolicy,
        metrics: SimulatorMetrics,
        sender: Posts | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock_s``: what waits follow, in seconds; it may jump forward, stand still and change its pace.

        Raises BadUrl for an app that cannot be called back and BadKey for one whose keys cannot be used.
        """
        self._endpoints: dict[str, list[_Endpoint]] = {}
        for app in apps:
            if app.callback_url:
                self._endpoints.setdefault(app.corp_id, []).append(_Endpoint(app))
        self._policy = policy
        self._clock_s = clock_s
        self._sender = sender or Sender(concurrency=policy.concurrency)
        self._log = get_logger()
        self._results = {
            result: metrics.deliveries.labels(result) for result in ("accepted", "refused", "timeout", "unreachable")
        }
        self._dropped = metrics.dropped
        self._heap: list[_Send] = []
        self._serial = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False
        self._closed = False
        self._open_sends = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.counts = DeliveryCounts()
        self.undelivered: list[Callback] = []
        """What was dropped for every app that it was meant for."""
        self.journal = Journal()
        self.lost_share = policy.lost_share
        """Of the callbacks from now on: never sent, without a trace at the receiver."""
        metrics.waiting.set_function(lambda: self.counts.waiting)

    def send(self, callback: Callback) -> None:
        """Takes one event: every app that is told of it gets a copy, whose deliveries follow by its fate."""
        endpoints = [e for e in self._endpoints.get(callback.corp_id, ()) if takes(e.app, callback)]
        told = _Told(callback, len(endpoints))
        for endpoint in endpoints:
            app = endpoint.app
            fate = fate_of(self._policy, f"{app.agent_id}|".encode() + callback.content)
            self.counts.submitted += 1
            entry = self.journal.open(app.corp_id, app.agent_id, callback.event, callback.content)
            copy = _Copy(endpoint, told, fate.agent_first, entry)
            if fate.luck < self.lost_share:
                self.counts.lost += 1
                self._drop(copy, "lost")
                continue
            now_s = self._clock_s()
            if endpoint.muted_until_s > now_s:
                self._mute(copy)
                continue
            self._plan(copy, self._held(now_s + fate.delay_s), attempt=1, duplicate=False)
            if fate.duplicate_delay_s is not None:
                self._plan(copy, self._held(now_s + fate.duplicate_delay_s), attempt=1, duplicate=True)

    @property
    def idle(self) -> bool:
        """Nothing is under way or waiting for another try."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Until everything submitted was accepted or dropped, duplicates included."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stops at once; what was not delivered is not."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._sender.close()

    def _held(self, due_s: float) -> float:
        burst_s = self._policy.burst_s
        return -(-due_s // burst_s) * burst_s if burst_s else due_s

    def _plan(self, copy: _Copy, due_s: float, *, attempt: int, duplicate: bool) -> None:
        copy.open_sends += 1
        self._open_sends += 1
        self._idle.clear()
        self._serial += 1
        send = _Send(due_s, self._serial, copy, attempt, duplicate)
        heapq.heappush(self._heap, send)
        if self._heap[0] is send and len(self._workers) < self._policy.concurrency:
            self._look_soon()

    def _look_soon(self) -> None:
        """In this turn of the loop, once however many callbacks come in it."""
        if not self._looking and not self._closed:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Begins what is due, as far as there is room; the workers it starts go on by themselves."""
        self._looking = False
        while not self._closed and len(self._workers) < self._policy.concurrency:
            send = self._next()
            if send is None:
                break
            worker = asyncio.create_task(self._work(send))
            self._workers.add(worker)
            worker.add_done_callback(self._ended)
        self._look_later()

    def _look_later(self) -> None:
        """Only while there is room: a full house looks for itself when a delivery ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._closed and len(self._workers) < self._policy.concurrency:
            wait_s = min(max(self._heap[0].due_s - self._clock_s(), 0.001), _LOOK_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _next(self) -> _Send | None:
        if self._heap and self._heap[0].due_s <= self._clock_s():
            return heapq.heappop(self._heap)
        return None

    async def _work(self, send: _Send | None) -> None:
        while send is not None:
            await self._deliver(send)
            send = self._next()

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            # A bug of ours, not of the receiver: without this the scenario would wait for ever without a word.
            self._log.error("delivery broke", exc_info=error)
        self._look_later()

    async def _deliver(self, send: _Send) -> None:
        copy, policy = send.copy, self._policy
        endpoint = copy.endpoint
        if endpoint.muted_until_s > self._clock_s():
            copy.muted = True
            self._done(copy, "muted")
            return
        query, body = endpoint.seal(copy.told.callback.content, agent_first=copy.agent_first)
        answer = await self._sender.post(endpoint.target, query, body, timeout_s=policy.timeout_s)
        result = _result_of(answer)
        self.counts.attempts += 1
        self._results[result].inc()
        copy.entry.attempts += 1
        if copy.entry.result != "accepted":
            copy.entry.result = result
        if result == "accepted":
            if not copy.accepted:
                copy.accepted = True
                self.counts.delivered += 1
            if send.duplicate:
                self.counts.duplicates += 1
        elif policy.retry_refused or result != "refused":
            now_s = self._clock_s()
            if endpoint.failed(now_s, policy):
                self._log.warning("endpoint given up", corp_id=endpoint.app.corp_id, seconds=policy.mute_s)
            if not send.duplicate and send.attempt < policy.total:
                wait_s = policy.retry_s[min(send.attempt - 1, len(policy.retry_s) - 1)]
                self.counts.retries += 1
                self._plan(copy, now_s + wait_s, attempt=send.attempt + 1, duplicate=False)
        self._done(copy, result, attempt=send.attempt)

    def _done(self, copy: _Copy, result: str, *, attempt: int = 0) -> None:
        copy.open_sends -= 1
        if not copy.open_sends and not copy.accepted:
            if copy.muted:
                self._mute(copy)
            else:
                self._drop(copy, "dropped")
                app = copy.endpoint.app
                self._log.warning("callback dropped", corp_id=app.corp_id, attempt=attempt, reason=result)
        self._open_sends -= 1
        if not self._open_sends:
            self._idle.set()

    def _mute(self, copy: _Copy) -> None:
        """Silent, as the platform: one line when it gives an endpoint up, none for each callback."""
        self.counts.muted += 1
        self._drop(copy, "dropped")

    def _drop(self, copy: _Copy, result: str) -> None:
        copy.entry.result = result
        self.counts.dropped += 1
        self._dropped.inc()
        copy.told.apps -= 1
        if not copy.told.apps:
            self.undelivered.append(copy.told.callback)


def _result_of(answer: Answer) -> str:
    if answer.status:
        return "accepted" if answer.status == 200 else "refused"
    return "timeout" if answer.failure == "timeout" else "unreachable"
