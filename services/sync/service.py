"""Long reads: asks the executor for the bill list, page by page, and emits what it finds as payment events.

A page's events are acknowledged by Kafka before the next page is asked for, and the watermark moves after the last one
(``domain``). Faust acknowledges a record even when its handler raised, so nothing here rests on that: whatever is lost
on the way is read again, and every event has the id of its bill.

One instance of the group reads a corp's bills: the owner of the partition in which the answers for that corp arrive. It
alone has that corp's watermark (a table with the same partitions), so timers need no leader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import faust
import msgspec
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from faust.exceptions import ProducerSendError
from faust.types import EventT, StreamT
from prometheus_client import CollectorRegistry

from services.sync import domain
from services.sync.metrics import SyncMetrics
from services.sync.settings import Settings, parse_time
from siyu.events import Action, ActionOutcome, CodecError, PaymentEvent, codec
from siyu.ops import dlq
from siyu.ops.clock import Clock, clock_from, wall_ms
from siyu.ops.corps import CorpsError, load_corps
from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import async_stop_event
from siyu.pay import BillPage, BillPageError, BillsRefused, event_key, parse_page
from siyu.wecom.endpoints import quota_scope

APP = "sync"
ENDPOINT = "externalpay/get_bill_list"
REASON = "sync.bills@1"
OUTCOMES = "action.outcomes"
ACTIONS = "actions.sync"
PAYMENTS = "payment.events"
DEAD_LETTERS = "dlq.sync"
TOPICS = (OUTCOMES, ACTIONS, PAYMENTS, DEAD_LETTERS)
DAY_MS = 86_400_000
HEARTBEAT_S = 1.0
STANDSTILL_S = 60.0
LONGEST_SEND_PAUSE_S = 5.0

_NOT_ACKNOWLEDGED = (ProducerSendError, KafkaError, asyncio.TimeoutError)


class Recently:
    """What has been sent since the window before the present one: bills of the overlap are listed again and again.

    Only saves traffic: it begins empty with every process, and every event has the id of its bill.
    """

    def __init__(self) -> None:
        self._young: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, identity: str) -> bool:
        if identity in self._young:
            return True
        if identity in self._old:
            self._young.add(identity)
            return True
        return False

    def add(self, identity: str) -> None:
        self._young.add(identity)

    def next_window(self) -> None:
        """Forgets what no bill of the last window has asked for."""
        self._old, self._young = self._young, set()


class Sync:
    """One process of the group."""

    def __init__(
        self, settings: Settings, corps: list[str], clock: Clock, metrics: SyncMetrics, health: Health, partitions: int
    ) -> None:
        self._settings = settings
        self._corps = corps
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = get_logger()
        since = parse_time(settings.sync_bills_since)
        self._config = domain.Config(
            since_ms=clock.now_ms() - DAY_MS if since is None else since,
            overlap_ms=settings.sync_overlap_seconds * 1000,
            window_ms=settings.sync_window_days * DAY_MS,
            ask_again_ms=int(settings.sync_ask_again_seconds * 1000),
            asks=settings.sync_asks,
            first_backoff_ms=int(settings.sync_first_backoff_seconds * 1000),
            longest_backoff_ms=int(settings.sync_longest_backoff_seconds * 1000),
        )
        self._progress: dict[str, domain.Progress] = {}
        self._recently: dict[str, Recently] = {}
        # Faust makes its own folder but none above it.
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        self.app = faust.App(
            APP,
            broker=[f"kafka://{address.strip()}" for address in settings.kafka_bootstrap.split(",")],
            datadir=settings.state_dir / APP,
            store="memory://",
            # The order of things, not their number: one page of one corp at a time.
            broker_max_poll_records=100,
            consumer_max_fetch_size=8 << 20,
            producer_max_request_size=8 << 20,
            producer_request_timeout=30.0,
            producer_compression_type="lz4",
            # A restart under the same name takes its partitions back without waiting for the old session to end.
            consumer_group_instance_id=f"{APP}-{settings.instance}",
            consumer_auto_offset_reset="earliest",
            # A vanished instance is replaced after this; nothing here keeps the loop busy for seconds.
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            broker_request_timeout=60.0,
            broker_commit_interval=1.0,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            topic_replication_factor=settings.sync_replication,
            topic_partitions=partitions,
            # Timers run where the partition is, see above: the leader's topic would never be read.
            topic_disable_leader=True,
            table_standby_replicas=0,
            web_enabled=False,
            worker_redirect_stdouts=False,
        )
        outcomes = self.app.topic(
            OUTCOMES,
            internal=False,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            allow_empty=True,
        )
        self._through: Any = self.app.Table(
            "bills", partitions=partitions, key_type=str, value_type=int, help="Business time read through, by corp"
        )
        self.app.agent(outcomes, name="outcomes", concurrency=1)(self._outcomes)
        self.app.timer(settings.sync_poll_interval_seconds, name="poll")(self._poll)
        self.app.timer(HEARTBEAT_S, name="heartbeat")(self._beat)

    # What happens

    async def _outcomes(self, stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            try:
                await self._on_outcome(event)
            except Exception as error:  # the rim: faust would acknowledge the record and lose it
                await self._bury(event, "handle", error)

    async def _beat(self) -> None:
        self._health.beat(None if self._settled() else "kafka: partitions are being assigned or recovered")

    async def _poll(self) -> None:
        """Time has passed: for every corp whose answers arrive here, the next question."""
        if not self._settled():
            return
        mine = {tp.partition for tp in self.app.consumer.assignment() if tp.topic == OUTCOMES}
        for corp_id in self._corps:
            if self.app.producer.key_partition(OUTCOMES, corp_id.encode()).partition not in mine:
                self._progress.pop(corp_id, None)
                continue
            now = self._clock.now_ms()
            progress, question = domain.tick(self._reading(corp_id), self._config, business_ms=now, wall_ms=wall_ms())
            self._progress[corp_id] = progress
            self._show(progress, now)
            if question is not None:
                await self._ask(question)

    async def _on_outcome(self, event: EventT[bytes]) -> None:
        try:
            outcome = codec().decode_as(ActionOutcome, event.value)
        except CodecError as error:
            await self._bury(event, "decode", error)
            return
        if outcome.lane != "sync" or outcome.reason != REASON:
            return
        if outcome.corp_id not in self._corps:
            self._log.warning("foreign_corp", corp_id=outcome.corp_id, action_id=outcome.action_id)
            return
        failed: domain.Failure | None = None
        errcode = outcome.errcode
        page = BillPage((), (), "")
        if outcome.status != "done":
            failed = domain.failure(outcome.status, errcode)
        else:
            try:
                page = parse_page(outcome.response, corp_id=outcome.corp_id, received_at_ms=outcome.finished_at_ms)
            except BillsRefused as refused:
                errcode = refused.errcode
                failed = domain.failure("failed", errcode)
            except BillPageError as error:
                failed = "unreadable"
                await self._bury(event, "page", error)
        if failed is not None:
            self._fail(outcome, failed, errcode)
            return
        # Whether or not anybody waits for this page: its bills are real.
        await self._emit(outcome, page)
        await self._bury_problems(event, outcome, page)
        self._metrics.pages.labels(outcome.corp_id).inc()
        before = self._reading(outcome.corp_id)
        now = self._clock.now_ms()
        progress, question = domain.page_read(
            before, self._config, outcome.action_id, page.next_cursor, business_ms=now, wall_ms=wall_ms()
        )
        self._progress[outcome.corp_id] = progress
        if progress.through_ms > before.through_ms:
            self._through[outcome.corp_id] = progress.through_ms
            self._recently[outcome.corp_id].next_window()
        self._show(progress, now)
        if question is not None:
            await self._ask(question)

    # What follows from it

    def _reading(self, corp_id: str) -> domain.Progress:
        if corp_id not in self._progress:
            self._recently[corp_id] = Recently()
            self._progress[corp_id] = domain.begin(corp_id, self._through.get(corp_id), self._config)
        return self._progress[corp_id]

    async def _ask(self, question: domain.Question) -> None:
        """Puts the question once. Not acknowledged is no harm: the tick asks again."""
        action = action_for(
            question, limit=self._settings.sync_page_limit, now_ms=self._clock.now_ms(), deadline_s=self._deadline_s
        )
        self._metrics.asked.labels(question.corp_id).inc()
        # Once a second and corp: of interest only to whoever looks for something.
        self._log.debug(
            "bills_asked",
            corp_id=question.corp_id,
            action_id=action.action_id,
            from_ms=question.begin_s * 1000,
            to_ms=question.end_s * 1000,
        )
        key = quota_scope(question.corp_id, ENDPOINT).encode()
        try:
            await self.app.producer.send_and_wait(ACTIONS, key, codec().encode(action), None, None, None)
        except _NOT_ACKNOWLEDGED as error:
            self._metrics.send_retries.labels(ACTIONS).inc()
            self._log.warning("bills_not_asked", corp_id=question.corp_id, error=type(error).__name__)

    @property
    def _deadline_s(self) -> int:
        return self._settings.sync_deadline_seconds

    async def _emit(self, outcome: ActionOutcome, page: BillPage) -> None:
        """Returns when Kafka has every event of the page."""
        recently = self._recently_of(outcome.corp_id)
        fresh = [event for event in page.events if event.event_id not in recently]
        self._metrics.repeats.labels(outcome.corp_id).inc(len(page.events) - len(fresh))
        await self._send_all(PAYMENTS, [(event_key(event).encode(), codec().encode(event), None) for event in fresh])
        for event in fresh:
            recently.add(event.event_id)
            self._metrics.events.labels(event.corp_id, event.change).inc()
            self._report(event)

    def _recently_of(self, corp_id: str) -> Recently:
        self._reading(corp_id)
        return self._recently[corp_id]

    def _report(self, event: PaymentEvent) -> None:
        if self._settings.log_events:
            self._log.info(
                "payment", event_id=event.event_id, corp_id=event.corp_id, event_type=event.change, topic=PAYMENTS
            )

    async def _bury_problems(self, event: EventT[bytes], outcome: ActionOutcome, page: BillPage) -> None:
        """Rows that are no event: the page is kept, once for each new row however often it is listed."""
        recently = self._recently_of(outcome.corp_id)
        fresh = [problem for problem in page.problems if problem.identity not in recently]
        if not fresh:
            return
        reasons = sorted({f"{problem.reason}:{problem.field}" for problem in fresh})
        await self._bury(event, "row", BillPageError(), {"rows": str(len(fresh)), "reasons": ",".join(reasons)})
        for problem in fresh:
            recently.add(problem.identity)
            self._metrics.problems.labels(outcome.corp_id, problem.reason).inc()

    def _fail(self, outcome: ActionOutcome, reason: domain.Failure, errcode: int) -> None:
        self._metrics.failures.labels(outcome.corp_id, reason).inc()
        now = wall_ms()
        before = self._reading(outcome.corp_id)
        progress = domain.page_failed(before, self._config, outcome.action_id, reason, errcode, wall_ms=now)
        self._progress[outcome.corp_id] = progress
        self._log.warning(
            "bills_failed",
            corp_id=outcome.corp_id,
            action_id=outcome.action_id,
            reason=reason,
            status=outcome.status,
            errcode=errcode,
            detail=outcome.detail,
            retry_in_seconds=max(0, progress.not_before_ms - now) / 1000,
        )

    async def _bury(
        self, event: EventT[bytes], stage: str, error: Exception, more: Mapping[str, str] | None = None
    ) -> None:
        """Keeps the record in the dead letter topic; returns when Kafka has it."""
        message = event.message
        headers = dlq.headers(
            message.topic,
            message.partition,
            message.offset,
            int(message.timestamp * 1000),
            stage=stage,
            error=error,
            processor=APP,
            earlier=dict(message.headers or ()).items(),
        )
        headers += [(name, value.encode()) for name, value in (more or {}).items()]
        await self._send_all(DEAD_LETTERS, [(_bytes(message.key), _bytes(event.value), headers)])
        self._metrics.dead_letters.labels(stage).inc()
        self._log.error(
            "dead_letter",
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            reason=stage,
            error=type(error).__name__,
        )

    async def _send_all(
        self, topic: str, records: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]] | None]]
    ) -> None:
        """Returns when Kafka has every record, however long that takes; repeats are harmless."""
        attempt = 0
        while records:
            sent = await asyncio.gather(*(self._send(topic, record) for record in records), return_exceptions=True)
            records = [record for record, error in zip(records, sent, strict=True) if error is not None]
            for error in sent:
                if isinstance(error, BaseException) and not isinstance(error, _NOT_ACKNOWLEDGED):
                    raise error
            if records:
                attempt += 1
                pause = min(LONGEST_SEND_PAUSE_S, 0.2 * 2**attempt)
                self._metrics.send_retries.labels(topic).inc()
                self._log.warning("not_acknowledged", topic=topic, records=len(records), retry_in_seconds=pause)
                await asyncio.sleep(pause)

    async def _send(
        self, topic: str, record: tuple[bytes | None, bytes | None, list[tuple[str, bytes]] | None]
    ) -> None:
        key, value, headers = record
        await self.app.producer.send_and_wait(topic, key, value, None, None, headers)

    def _settled(self) -> bool:
        """Partitions are assigned and the table holds what was stored for them."""
        app = self.app
        recovery: Any = app.tables.recovery  # type: ignore[attr-defined]
        return not (app.rebalancing or recovery.in_recovery) and recovery.completed.is_set()

    def _show(self, progress: domain.Progress, now_ms: int) -> None:
        self._metrics.read_through.labels(progress.corp_id).set(progress.through_ms)
        self._metrics.behind.labels(progress.corp_id).set(max(0, now_ms - progress.through_ms) / 1000)


class Health:
    """What /livez and /readyz answer; beaten by the loop."""

    def __init__(self) -> None:
        self._turned_at = time.monotonic()
        self._waiting_for: str | None = "starting"

    def beat(self, waiting_for: str | None) -> None:
        """The loop turns; ``waiting_for`` says what keeps it from working."""
        self._turned_at = time.monotonic()
        self._waiting_for = waiting_for

    def live(self) -> str | None:
        still = time.monotonic() - self._turned_at
        return None if still < STANDSTILL_S else f"loop stands still for {still:.0f} s"

    def ready(self) -> str | None:
        return self._waiting_for or self.live()


def action_for(question: domain.Question, *, limit: int, now_ms: int, deadline_s: int) -> Action:
    """The call that answers the question."""
    body: dict[str, Any] = {"begin_time": question.begin_s, "end_time": question.end_s, "limit": limit}
    if question.cursor:
        body["cursor"] = question.cursor
    return Action(
        action_id=question.action_id,
        lane="sync",
        corp_id=question.corp_id,
        endpoint=ENDPOINT,
        subject=question.corp_id,
        staff_id="",
        customer_id="",
        payload=msgspec.json.encode(body),
        reason=REASON,
        caused_by=question.work_id,
        created_ms=now_ms,
        not_before_ms=0,
        deadline_ms=now_ms + deadline_s * 1000 if deadline_s else 0,
        trigger_received_at_ms=0,
    )


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()


def _topics(bootstrap: str) -> dict[str, int] | None:
    """Partitions by topic; None while Kafka does not answer."""
    try:
        topics = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=5).topics
    except KafkaException:
        return None
    return {name: len(topic.partitions) for name, topic in topics.items()}


async def _partitions(settings: Settings, health: Health, stop: asyncio.Event) -> int:
    """Waits for Kafka and for the topics; the number of partitions of the outcomes, 0 when asked to stop."""
    log = get_logger()
    said = ""
    while not stop.is_set():
        topics = await asyncio.to_thread(_topics, settings.kafka_bootstrap)
        if topics is None:
            reason = "kafka: no broker answers"
        elif missing := [name for name in TOPICS if name not in topics]:
            reason = f"kafka: no topic {missing[0]}, see siyu topics apply"
        else:
            return topics[OUTCOMES]
        health.beat(reason)
        if reason != said:
            log.warning("waiting", reason=reason)
            said = reason
        await _either(stop.wait(), asyncio.sleep(0.5))
    return 0


async def _either(*waits: Any) -> None:
    """Until the first of them is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _run(settings: Settings, metrics: SyncMetrics, health: Health) -> int:
    log = get_logger()
    stop = async_stop_event()
    corps = sorted(load_corps(settings.corps))
    clock = clock_from(settings.clock_file)
    partitions = await _partitions(settings, health, stop)
    if not partitions:
        return 0
    app = Sync(settings, corps, clock, metrics, health, partitions).app
    starting = asyncio.ensure_future(app.start())
    await _either(stop.wait(), _ended(app, starting))
    if stop.is_set():
        log.info("stopping", reason="asked_to")
        await app.stop()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    crash: BaseException | None = app.crash_reason or (starting.exception() if starting.done() else None)
    log.critical("crashed", exc_info=crash)
    await app.stop()
    return 70


async def _ended(app: Any, starting: asyncio.Future[Any]) -> None:
    await starting
    await app.wait_until_stopped()


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status."""
    settings = Settings()
    configure_logging(APP, settings.log_level)
    log = get_logger()
    log.info("starting", settings=settings.redacted())
    registry = CollectorRegistry()
    health = Health()
    server = OpsServer(
        settings.metrics_host, settings.metrics_port, registry=registry, live=health.live, ready=health.ready
    )
    try:
        status = asyncio.run(_run(settings, SyncMetrics(registry), health))
    except CorpsError as error:
        log.critical("stopped", reason="corps_file", error_detail=str(error))
        return 78
    finally:
        server.close()
    log.info("stopped", status=status)
    return status
