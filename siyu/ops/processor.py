"""A stateful processor as a service: signals, metrics, health, and the exit code by which it is restarted or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry

from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.settings import ProcessorSettings
from siyu.ops.signals import stop_event
from siyu.ops.workers.worker import this_worker
from siyu.stream import Processor, Runtime, StreamError, StreamSettings

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T", bound=ProcessorSettings)
NEEDS_A_PERSON = 78
"""EX_CONFIG: restarting changes nothing."""


def run_processor(
    settings: T,
    processor: Callable[[T, CollectorRegistry], Processor[S]],
    *,
    batch_records: int = StreamSettings.batch_records,
    batch_ms: int = StreamSettings.batch_ms,
) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code: 0 on a signal, 75 fenced, 78 needs a person, else 1.

    What ``processor`` raises, this raises.
    """
    stop = stop_event()
    registry = CollectorRegistry()
    built = processor(settings, registry)
    configure_logging(built.name, settings.log_level)
    log = get_logger()
    runtime = Runtime(
        built,
        StreamSettings(
            settings.kafka_bootstrap,
            settings.state_dir,
            settings.instance,
            batch_records=batch_records,
            batch_ms=batch_ms,
            cache_bytes=settings.cache_mb << 20,
            session_timeout_ms=settings.session_timeout_ms,
            transaction_timeout_ms=settings.transaction_timeout_ms,
        ),
        registry=registry,
    )

    def ready() -> str | None:
        if halted := runtime.halted():
            return "halted: " + "; ".join(f"partition {number}: {reason}" for number, reason in sorted(halted.items()))
        return None if runtime.ready() else "not connected, or not restored yet"

    worker = this_worker()
    try:
        ops = OpsServer(
            settings.metrics_host,
            settings.metrics_port,
            registry=registry,
            live=lambda: None if runtime.alive() else "the loop stands still",
            ready=ready,
            listener=worker.listener if worker else None,
        )
    except OSError:
        log.error("port_taken", port=settings.metrics_port, detail="set SIYU_METRICS_PORT to a free port")
        return NEEDS_A_PERSON
    log.info("service_started", settings=settings.redacted(), port=ops.port)
    try:
        runtime.run(stop)
    except StreamError as error:
        log.error("service_failed", error=type(error).__name__, error_detail=str(error))
        return error.exit_code
    except Exception as error:  # the rim of the process: nothing is lost, the next start goes on from the last commit
        log.error("service_crashed", exc_info=error)
        return 1
    finally:
        ops.close()
    log.info("service_stopped")
    return 0
