"""Composition of the executor: one client, one limiter and one owner of tokens, shared by all lanes."""

from __future__ import annotations

import asyncio
import time
from random import SystemRandom

from prometheus_client import CollectorRegistry

from services.executor.consumer import Fenced, LaneConsumer
from services.executor.lanes import LANES
from services.executor.metrics import ExecutorMetrics
from services.executor.performer import Performer
from services.executor.settings import Settings
from siyu.events import codec, schemas_dir
from siyu.ops.clock import ClockError, clock_from, wall_ms
from siyu.ops.corps import CorpsError, load_corps
from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import async_stop_event
from siyu.wecom.client import WecomClient
from siyu.wecom.errors import ErrorTableError, load_error_tables
from siyu.wecom.limits import Limiter, LimitsError, load_limits

_STALL_SECONDS = 30.0
_REPORT_SECONDS = 1.0


def run(settings: Settings) -> int:
    """Runs the executor until a signal; the exit status: 0, 75 when fenced, 78 for a bad configuration, 1 for a bug."""
    configure_logging("executor", settings.log_level)
    status = 0
    try:
        asyncio.run(_until_signal(settings))
    except* Fenced:
        get_logger().error("fenced", instance=settings.instance)
        status = Fenced.exit_code
    except* (CorpsError, ClockError, ErrorTableError, LimitsError, PortTaken) as refusals:
        for refusal in refusals.exceptions:
            get_logger().error("configuration_refused", error=type(refusal).__name__, error_detail=str(refusal))
        status = 78
    except* Exception as errors:
        # Logged by class and place: a traceback's text may quote a record.
        for error in errors.exceptions:
            get_logger().error("service_crashed", instance=settings.instance, exc_info=error)
        status = status or 1
    return status


class PortTaken(Exception):
    """The port of the operations server is in use."""


async def _until_signal(settings: Settings) -> None:
    await serve(settings, async_stop_event())


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Runs every lane until ``stop``. Raises what ends a lane, in a group."""
    log = get_logger().bind(instance=settings.instance)
    registry = CollectorRegistry()
    metrics = ExecutorMetrics(registry)
    corps = load_corps(settings.corps)
    tables = load_error_tables(schemas_dir() / "rules" / "wecom-errors.yaml")
    limiter = Limiter(load_limits(schemas_dir() / "limits"))
    turned = time.monotonic()
    lanes: list[LaneConsumer] = []

    def live() -> str | None:
        return None if time.monotonic() - turned < _STALL_SECONDS else "the loop does not turn"

    def ready() -> str | None:
        waiting = [lane.lane.name for lane in lanes if not lane.ready()]
        return None if lanes and not waiting else f"lanes not ready: {', '.join(waiting) or 'all'}"

    try:
        ops = OpsServer(settings.metrics_host, settings.metrics_port, registry=registry, live=live, ready=ready)
    except OSError:
        raise PortTaken(f"port {settings.metrics_port} is taken: set SIYU_METRICS_PORT to a free one") from None
    log.info("service_started", settings=settings.redacted(), port=ops.port)
    try:
        async with WecomClient(settings.wecom_base_url) as client:
            performer = Performer(
                client=client,
                corps=corps,
                limiter=limiter,
                error_table=lambda: tables.at(wall_ms()),
                clock=clock_from(settings.clock_file),
                metrics=metrics,
                random=SystemRandom(),
            )
            lanes += [
                LaneConsumer(
                    lane,
                    performer,
                    bootstrap=settings.kafka_bootstrap,
                    instance=settings.instance,
                    codec=codec(),
                    metrics=metrics,
                    session_timeout_ms=settings.session_timeout_ms,
                    stop_grace_seconds=settings.stop_grace_seconds,
                    log_events=settings.log_events,
                )
                for lane in LANES
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    running = [group.create_task(lane.run(stop)) for lane in lanes]
                    while not all(task.done() for task in running):
                        turned = time.monotonic()
                        _report(limiter, metrics)
                        await asyncio.wait(running, timeout=_REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await performer.tokens.close()
    finally:
        ops.close()
    log.info("service_stopped")


def _report(limiter: Limiter, metrics: ExecutorMetrics) -> None:
    for scope, usage in limiter.usage().items():
        corp_id, _, endpoint = scope.partition("|")
        for window, used in usage:
            metrics.quota_used.labels(corp_id, endpoint, window.name).set(used)
            metrics.quota_limit.labels(corp_id, endpoint, window.name).set(window.limit)
