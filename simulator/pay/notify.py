"""Notifications as WeChat Pay sends them (fact sheet 3.15): signed, encrypted, repeated for a day, at times as a probe.

Every delivery of a notice carries the same body under a new timestamp, nonce and signature. Answered with 200 or 204
within five seconds it is done; else it comes again after 15 s, 15 s, 30 s … for 24 h 4 min of *business* time, so that
a compressed clock compresses the schedule, and then never again. A seeded share comes twice, and all come late by up
to some seconds, so that they overtake each other. A probe is a copy whose signature begins with WECHATPAY/SIGNTEST/:
a receiver that takes it verifies nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from simulator.pay import signing
from simulator.pay.times import rfc3339
from simulator.world.corp import CorpWorld
from siyu.ops.logging import get_logger

if TYPE_CHECKING:
    from simulator.pay.merchant import Merchant

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[int | None]]
"""Sends a body to a URL; the status of the answer, None when there was none."""

PAYMENT_RETRY_S = (15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600, 21_600)
"""Waits after each failed delivery of a payment's or refund's notice: 24 h 4 min together."""
COUPON_RETRY_S = (60,) * 8
"""Coupon notices come once a minute, nine times; the fact sheet only says that their schedule is another one."""

_Kind = Literal["notice", "duplicate", "probe"]


@dataclass(frozen=True, slots=True)
class NotifyPolicy:
    """How deliveries go wrong. Seconds of business time but for ``timeout_s``, which is wall time."""

    duplicate_share: float = 0.05
    duplicate_within_s: int = 30
    shuffle_s: int = 3
    probe_share: float = 0.02
    """Notices before which a probe comes."""
    timeout_s: float = 5.0
    concurrency: int = 32
    public_key_share: float = 1.0
    """Notices signed by the WeChat Pay public key (serial ``PUB_KEY_ID_…``), the others by the platform certificate."""


@dataclass(slots=True)
class NotifyCounts:
    """What became of notices. A correct receiver leaves ``probes_taken`` at 0."""

    submitted: int = 0
    delivered: int = 0
    given_up: int = 0
    attempts: int = 0
    duplicates: int = 0
    """Second copies that were taken."""
    probes: int = 0
    probes_refused: int = 0
    probes_taken: int = 0
    """Probes answered 200 or 204: the receiver does not verify."""
    probes_unanswered: int = 0
    by_event: Counter[str] = field(default_factory=Counter)

    @property
    def waiting(self) -> int:
        """Notices neither delivered nor given up."""
        return self.submitted - self.delivered - self.given_up


@dataclass(slots=True)
class Notice:
    """One notification, encrypted once."""

    id: str
    url: str
    mchid: str
    event_type: str
    body: bytes
    retry_s: tuple[int, ...]
    by_public_key: bool
    delivered: bool = False
    given_up: bool = False


class PayNotifier:
    """Sends notices; one per process, inside one event loop."""

    def __init__(self, *, post: Post, signing_s: Callable[[], int], policy: NotifyPolicy | None = None) -> None:
        """``signing_s``: the second that goes into timestamps, which receivers compare with their own clock."""
        self._post = post
        self._signing_s = signing_s
        self._policy = policy or NotifyPolicy()
        self._log = get_logger()
        self._slots = asyncio.Semaphore(self._policy.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._serial = 0
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._merchants: dict[str, Merchant] = {}
        self.counts = NotifyCounts()

    def notify(
        self,
        corp: CorpWorld,
        merchant: Merchant,
        *,
        url: str,
        time_s: int,
        event_type: str,
        original_type: str,
        summary: str,
        content: Mapping[str, Any],
        retry_s: tuple[int, ...] = PAYMENT_RETRY_S,
    ) -> str:
        """Plans a notice of something that happened at ``time_s``; returns its id, empty when there is no URL."""
        if not url:
            return ""
        self._merchants[merchant.mchid] = merchant
        self._serial += 1
        notice_id = _notice_id(corp.seed, merchant.mchid, self._serial)
        chance = corp.random("pay-notify", notice_id)
        body = msgspec.json.encode(
            {
                "id": notice_id,
                "create_time": rfc3339(time_s),
                "resource_type": "encrypt-resource",
                "event_type": event_type,
                "summary": summary,
                "resource": signing.resource(
                    merchant.apiv3_key,
                    msgspec.json.encode(content),
                    nonce=signing.token(corp.seed, "gcm", notice_id, length=12),
                    associated=original_type,
                    original=original_type,
                ),
            }
        )
        by_public_key = chance.random() < self._policy.public_key_share
        notice = Notice(notice_id, url, merchant.mchid, event_type, body, retry_s, by_public_key)
        first_s = time_s + chance.randint(0, self._policy.shuffle_s)
        self.counts.submitted += 1
        self.counts.by_event[event_type] += 1
        if chance.random() < self._policy.probe_share:
            self._plan(corp, notice, first_s, 0, "probe")
        self._plan(corp, notice, first_s, 0, "notice")
        if chance.random() < self._policy.duplicate_share:
            self._plan(corp, notice, first_s + chance.randint(0, self._policy.duplicate_within_s), 0, "duplicate")
        return notice_id

    def probe(self, corp: CorpWorld, merchant: Merchant, *, url: str, time_s: int) -> None:
        """Sends a probe by itself, of a payment that never was."""
        self._merchants[merchant.mchid] = merchant
        self._serial += 1
        notice_id = _notice_id(corp.seed, merchant.mchid, self._serial)
        sealed = signing.resource(
            merchant.apiv3_key,
            b"{}",
            nonce=signing.token(corp.seed, "gcm", notice_id, length=12),
            associated="transaction",
            original="transaction",
        )
        body = msgspec.json.encode(
            {
                "id": notice_id,
                "create_time": rfc3339(time_s),
                "resource_type": "encrypt-resource",
                "event_type": "TRANSACTION.SUCCESS",
                "summary": "支付成功",
                "resource": sealed,
            }
        )
        notice = Notice(notice_id, url, merchant.mchid, "TRANSACTION.SUCCESS", body, (), True)
        self._plan(corp, notice, time_s, 0, "probe")

    @property
    def idle(self) -> bool:
        """Nothing is under way or waiting for its time."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Until every notice was delivered or given up, its copies and probes included."""
        await self._idle.wait()

    async def settle(self) -> None:
        """Until nothing is on the wire; what waits for its time on the clock still does."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stops at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _plan(self, corp: CorpWorld, notice: Notice, time_s: int, attempt: int, kind: _Kind) -> None:
        self._open += 1
        self._idle.clear()
        corp.schedule.at(time_s, partial(self._begin, corp, notice, attempt, kind))

    def _begin(self, corp: CorpWorld, notice: Notice, attempt: int, kind: _Kind, due_s: int) -> None:
        if kind == "notice" and notice.delivered:  # a copy was faster
            self._ended()
            return
        task = asyncio.get_running_loop().create_task(self._deliver(corp, notice, attempt, kind, due_s))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours: without this line a scenario would wait for ever without a word.
            self._log.error("notification broke", exc_info=error)

    def _ended(self) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def _deliver(self, corp: CorpWorld, notice: Notice, attempt: int, kind: _Kind, due_s: int) -> None:
        try:
            async with self._slots:
                status = await self._send(notice, kind)
            self._judge(corp, notice, attempt, kind, due_s, status)
        finally:
            self._ended()

    async def _send(self, notice: Notice, kind: _Kind) -> int | None:
        merchant = self._merchants[notice.mchid]
        key, serial = merchant.keys.signer(public_key=notice.by_public_key)
        self._serial += 1
        nonce = signing.token(notice.id, self._serial)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Request-ID": signing.token("request", notice.id, self._serial),
            **signing.signed_headers(
                key, serial, notice.body, timestamp=self._signing_s(), nonce=nonce, probe=kind == "probe"
            ),
        }
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                return await self._post(notice.url, headers, notice.body)
        except TimeoutError:
            return None

    def _judge(
        self, corp: CorpWorld, notice: Notice, attempt: int, kind: _Kind, due_s: int, status: int | None
    ) -> None:
        counts, taken = self.counts, status in (200, 204)
        if kind == "probe":
            counts.probes += 1
            if taken:
                counts.probes_taken += 1
                self._log.warning("a probe was taken", reason="signature_not_verified")
            elif status is None:
                counts.probes_unanswered += 1
            else:
                counts.probes_refused += 1
            return
        counts.attempts += 1
        if taken:
            counts.duplicates += kind == "duplicate"
            if not notice.delivered:
                notice.delivered = True
                counts.delivered += 1
                counts.given_up -= notice.given_up
                notice.given_up = False
        elif kind == "notice":
            if attempt < len(notice.retry_s):
                self._plan(corp, notice, due_s + notice.retry_s[attempt], attempt + 1, "notice")
            elif not notice.delivered:
                notice.given_up = True
                counts.given_up += 1
                self._log.warning("notification given up", attempt=attempt + 1, status=notice.event_type)


def _notice_id(seed: int, mchid: str, serial: int) -> str:
    """36 characters in groups, as ids of notices look."""
    name = hashlib.blake2b(f"{seed}|notice|{mchid}|{serial}".encode(), digest_size=16).hexdigest()
    return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"
