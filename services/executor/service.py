"""Composition of the executor: the tables every process follows, one client, one disk, and the group's shards."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from random import SystemRandom

import uvloop
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from services.executor.control import TOPIC as CONTROL
from services.executor.control import ControlTable
from services.executor.disk import Disk, DiskLocked
from services.executor.gates import Gates
from services.executor.guard import Breaker, GuardTable
from services.executor.intake import Intake
from services.executor.journal import LEDGER, QUOTA
from services.executor.key_ring import KeyRingError, load_key_ring
from services.executor.membership import shard_of
from services.executor.metrics import ExecutorMetrics
from services.executor.process import Process
from services.executor.settings import Settings
from services.executor.shard import LEASES, Shard
from services.executor.site import LANES
from services.executor.suppression import TOPIC as SUPPRESSIONS
from services.executor.suppression import SuppressionTable
from services.executor.timings import TimingsError, load_timings
from services.executor.token_rules import TokenRulesError, load_token_rules
from services.executor.token_table import TOPIC as TOKENS
from services.executor.token_table import TokenTable
from services.executor.work import Surroundings
from siyu.content import ContentError
from siyu.content import default_folder as content_folder
from siyu.content import load_rules as load_content
from siyu.events import ConfigRecord, QuotaLease, codec, schemas_dir
from siyu.guard.rules import RulesError
from siyu.guard.rules import load_rules as load_guard
from siyu.limits import LimitsError, LimitSource, load_registry
from siyu.limits.topic import remember
from siyu.ops.clock import ClockError, clock_from, wall_ms
from siyu.ops.corps import CorpsError, load_corps
from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.scan import ScanError
from siyu.ops.signals import async_stop_event
from siyu.ops.tables import TopicTables
from siyu.wecom.client import WecomClient
from siyu.wecom.errors import ErrorTableError, load_error_tables

CONFIG = "config"
GUARD_STATE = "guard.state"
_STALL_SECONDS = 30.0
_REPORT_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_REQUEST_SECONDS = 10.0
_DAY_MS = 86_400_000
_TOKEN_TIMEOUT_MS = 5_000


class PortTaken(Exception):
    """The port of the operations server is in use."""


class TopologyError(Exception):
    """Topics that do not go together; the message says which and what to do."""


_REFUSALS = (
    CorpsError,
    ClockError,
    ContentError,
    DiskLocked,
    ErrorTableError,
    KeyRingError,
    LimitsError,
    PortTaken,
    RulesError,
    TimingsError,
    TokenRulesError,
    TopologyError,
)
"""What a person has to put right."""


def run(settings: Settings) -> int:
    """Runs the executor until a signal; the exit status: 0, 78 for a bad configuration, 1 for a bug."""
    configure_logging("executor", settings.log_level)
    status = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signal(settings))
    except* _REFUSALS as refusals:
        for refusal in refusals.exceptions:
            get_logger().error("configuration_refused", error=type(refusal).__name__, error_detail=str(refusal))
        status = 78
    except* Exception as errors:
        # Logged by class and place: a traceback's text may quote a record.
        for error in errors.exceptions:
            get_logger().error("service_crashed", instance=settings.instance, exc_info=error)
        status = status or 1
    return status


async def _until_signal(settings: Settings) -> None:
    await serve(settings, async_stop_event())


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Runs until ``stop``. Raises what is wrong with the configuration."""
    log = get_logger().bind(instance=settings.instance)
    registry = CollectorRegistry()
    metrics = ExecutorMetrics(registry)
    turned = time.monotonic()
    intake: Intake | None = None
    tables = TopicTables(
        settings.kafka_bootstrap,
        f"executor-{settings.instance}-tables",
        refused=lambda topic: metrics.config_refused.labels(topic).inc(),
    )

    def live() -> str | None:
        return None if time.monotonic() - turned < _STALL_SECONDS else "the loop does not turn"

    def ready() -> str | None:
        if not tables.ready():
            return "reading the tables"
        return intake.problem() if intake is not None else "not in the group yet"

    process, fixed = _process(settings, metrics, tables)

    def told(key: bytes, value: bytes | None) -> None:
        if value is None or intake is None:
            return
        lease = process.codec.decode_as(QuotaLease, value)
        shard = intake.shards.get(lease.shard if lease.kind == "grant" else shard_of(lease.level, process.shards))
        if shard is not None:
            shard.told(lease)

    # What was said before we were there is said again, or over.
    tables.follow(LEASES, told, only_new=True)
    try:
        ops = OpsServer(settings.metrics_host, settings.metrics_port, registry=registry, live=live, ready=ready)
    except OSError:
        raise PortTaken(f"port {settings.metrics_port} is taken: set SIYU_METRICS_PORT to a free one") from None
    log.info("service_started", settings=settings.redacted(), port=ops.port)
    try:
        async with process.client:
            topology = await _topology(settings.kafka_bootstrap, stop)
            if topology is None:
                return
            process.shards, process.ledger_id = topology
            following = asyncio.create_task(tables.run(stop))
            try:
                if not await _first(tables.caught_up(), stop):
                    return
                remembering = asyncio.create_task(_remember(settings, process))
                intake = Intake(
                    lambda index: Shard(index, process),
                    metrics,
                    owned=lambda count: setattr(process, "owned", count),
                    bootstrap=settings.kafka_bootstrap,
                    instance=settings.instance,
                    session_timeout_ms=settings.session_timeout_ms,
                    stop_grace_seconds=settings.stop_grace_seconds,
                )
                async with asyncio.TaskGroup() as group:
                    working = group.create_task(intake.run(stop))
                    while not working.done():
                        turned = time.monotonic()
                        _report(intake, process, metrics)
                        await asyncio.wait({working, following}, timeout=_REPORT_SECONDS)
                        if following.done() and not stop.is_set():
                            following.result()
                await remembering
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    finally:
        ops.close()
        for end in fixed:
            end()
    log.info("service_stopped")


def _process(
    settings: Settings, metrics: ExecutorMetrics, tables: TopicTables
) -> tuple[Process, list[Callable[[], None]]]:
    """Everything the shards share, and what has to be closed at the end."""
    rules = schemas_dir() / "rules"
    clock = clock_from(settings.clock_file)
    corps = load_corps(settings.corps)
    errors = load_error_tables(rules / "wecom-errors.yaml")
    timings = load_timings(rules / "executor.yaml")
    token_rules = load_token_rules(rules / "tokens.yaml").at(wall_ms())
    guard_rules = load_guard(rules / "guard.yaml")
    content = load_content(content_folder())
    log = get_logger()

    def refused_limits(why: str) -> None:
        metrics.config_refused.labels("limits").inc()
        log.error("limits_refused", error_detail=why)

    limits = LimitSource(load_registry(settings.limits), refused_limits)
    ring = load_key_ring(settings.token_keys, corps.values())
    tokens = TokenTable(corps, ring, token_rules)
    control, suppressions, guard = ControlTable(), SuppressionTable(), GuardTable(guard_rules)

    def configure(key: bytes, value: bytes | None) -> None:
        if value is not None:
            limits.offer(codec().decode_as(ConfigRecord, value))
        elif key == b"limits|registry":
            limits.offer(None)

    def told_by_the_guard(key: bytes, value: bytes | None) -> None:
        if not guard.apply(key, value):
            raise ValueError("a guard state that cannot be read")

    tables.follow(CONFIG, configure)
    tables.follow(CONTROL, control.apply)
    tables.follow(SUPPRESSIONS, suppressions.apply)
    tables.follow(GUARD_STATE, told_by_the_guard)
    tables.follow(TOKENS, tokens.apply)
    disk = Disk(settings.state_dir / f"executor-{settings.instance}")

    def gates(shard: int, incarnation: str) -> Gates:
        return Gates(
            control=control,
            suppressions=suppressions,
            guard=guard,
            breaker=Breaker(guard_rules, guard, shard=shard, incarnation=incarnation),
            content=content,
            tables=tables,
            wall_ms=wall_ms,
            refused_content=lambda rule: metrics.content_stopped.labels(rule).inc(),
        )

    process = Process(
        bootstrap=settings.kafka_bootstrap,
        instance=settings.instance,
        incarnation=secrets.token_hex(8),
        shards=0,
        ledger_id="",
        egress=settings.egress,
        corps=corps,
        codec=codec(),
        clock=clock,
        random=SystemRandom(),
        client=WecomClient(settings.wecom_base_url),
        disk=disk,
        limits=limits,
        tokens=tokens,
        ring=ring,
        token_rules=token_rules,
        error_table=lambda: errors.at(wall_ms()),
        control=control,
        around=Surroundings(
            error_table=lambda: errors.at(wall_ms()),
            limits=lambda: limits.current(clock.now_ms()),
            rules=lambda: timings.at(clock.now_ms()),
            suppressed=suppressions.suppressed,
            agent_id=lambda corp_id: corps[corp_id].agent_id,
            known_message=disk.knows_message,
            pace=clock.pace,
        ),
        metrics=metrics,
        gates=gates,
        fresh=tables.fresh,
        token_timeout_ms=_TOKEN_TIMEOUT_MS,
        known_codes=errors.at(wall_ms()).codes,
        nonce=lambda: os.urandom(12),
        most_waiting=settings.most_waiting,
        keep_ended_ms=int(settings.remember_days * _DAY_MS),
        log_events=settings.log_events,
    )
    return process, [disk.close]


async def _remember(settings: Settings, process: Process) -> None:
    """Keeps the limits this release came with in the history, so that a decision made by them can be evaluated when
    the next release no longer has them."""
    seed = load_registry(settings.limits)
    try:
        await asyncio.to_thread(
            remember,
            settings.kafka_bootstrap,
            seed,
            author="executor",
            reason="came with the release",
            written_at_ms=wall_ms(),
        )
    except (LimitsError, ScanError) as error:
        get_logger().warning("limits_not_remembered", error=type(error).__name__, error_detail=str(error))


async def _topology(bootstrap: str, stop: asyncio.Event) -> tuple[int, str] | None:
    """Partitions of the shard topics, which must be the same in all, and the ledger's identity. None: stopped."""
    names = [f"actions.{lane}" for lane in LANES] + [LEDGER, QUOTA, LEASES]
    while not stop.is_set():
        try:
            described = await asyncio.to_thread(_describe, bootstrap, names)
        except KafkaException as error:
            get_logger().warning(
                "kafka_unreachable",
                error=type(error).__name__,
                error_detail=str(error),
                retry_in_seconds=_RETRY_SECONDS,
            )
            await _first(asyncio.sleep(_RETRY_SECONDS), stop)
            continue
        counts = {name: partitions for name, (partitions, _) in described.items()}
        if len(set(counts.values())) != 1:
            found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            raise TopologyError(f"the executor's topics need the same number of partitions: {found}; see topics.yaml")
        return counts[LEDGER], described[LEDGER][1]
    return None


def _describe(bootstrap: str, names: list[str]) -> dict[str, tuple[int, str]]:
    # A broker that is away now is tried again within the half second in which it is back, not after the usual ten.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})
    answers = admin.describe_topics(TopicCollection(names), request_timeout=_REQUEST_SECONDS)
    described = {name: answer.result() for name, answer in answers.items()}
    return {name: (len(topic.partitions), str(topic.topic_id)) for name, topic in described.items()}


async def _first(waiting: Coroutine[object, object, None], stop: asyncio.Event) -> bool:
    """Waits; False when ``stop`` came first."""
    task = asyncio.create_task(waiting)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


def _report(intake: Intake, process: Process, metrics: ExecutorMetrics) -> None:
    """Gauges, from what the shards know."""
    process.control.forget(wall_ms())
    now_ms = process.clock.now_ms()
    waiting = dict.fromkeys(LANES, 0)
    under_way = in_doubt = in_flight = 0
    for shard in intake.shards.values():
        figures = shard.figures()
        under_way += figures.under_way
        in_doubt += figures.in_doubt
        in_flight += figures.in_flight
        for lane, count in figures.waiting.items():
            waiting[lane] += count
        for level in shard.governor.usage(now_ms, shared_only=True):
            for window in level.windows:
                metrics.quota_used.labels(level.corp_id, level.endpoint, window.id).set(window.used)
                metrics.quota_limit.labels(level.corp_id, level.endpoint, window.id).set(window.amount)
            frozen_ms = max((window.frozen_until_ms for window in level.windows), default=0)
            metrics.frozen_until.labels(level.corp_id, level.endpoint).set(frozen_ms / 1000)
    for lane, count in waiting.items():
        metrics.waiting.labels(lane).set(count)
    metrics.under_way.set(under_way)
    metrics.in_doubt.set(in_doubt)
    metrics.in_flight.set(in_flight)
