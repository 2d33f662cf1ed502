"""Composition root of performance: staff deltas in, the staff member's day as it stands out, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.performance.domain import StaffMember, apply
from services.performance.settings import Settings
from siyu.events import StaffDelta, codec
from siyu.events.ids import staff_key
from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import stop_event
from siyu.stream import Context, Processor, Record, Runtime, Step, StreamError, StreamSettings

NAME = "performance"
STAFF_DELTAS, SNAPSHOTS = "staff.deltas", "performance.snapshots"


def processor(*, log_events: bool) -> Processor[StaffMember]:
    """What the runtime runs."""
    return Processor(
        name=NAME,
        inputs=(STAFF_DELTAS,),
        outputs=frozenset({SNAPSHOTS}),
        codec=codec(),
        step=build_step(log_events=log_events),
        state_type=StaffMember,
        state_version=1,
        dead_letters="dlq.performance",
    )


def build_step(*, log_events: bool) -> Step[StaffMember]:
    """Fits the domain to the runtime: checks the key, sends the snapshot, leaves a line in the log."""
    log = get_logger()

    def step(key: str, record: Record, state: StaffMember | None, ctx: Context) -> StaffMember | None:
        delta = record.value
        if not isinstance(delta, StaffDelta):
            raise ValueError("not a staff delta")
        if key != staff_key(delta.corp_id, delta.staff_id):
            # Applied under a foreign key it would count for another staff member.
            raise ValueError("the record's key is not its staff member's")
        new, snapshot = apply(state, delta)
        ctx.emit(SNAPSHOTS, key, snapshot)
        if log_events:
            log.info(
                "delta_applied",
                event_id=delta.caused_by,
                corp_id=delta.corp_id,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
        return new

    return step


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; the exit code of the process."""
    configure_logging(NAME, settings.log_level)
    log = get_logger()
    stop = stop_event()
    registry = CollectorRegistry()
    runtime = Runtime(
        processor(log_events=settings.log_events),
        StreamSettings(settings.kafka_bootstrap, settings.state_dir, settings.instance),
        registry=registry,
    )
    try:
        ops = OpsServer(
            settings.metrics_host,
            settings.metrics_port,
            registry=registry,
            live=lambda: None if runtime.alive() else "the loop stands still",
            ready=lambda: None if runtime.ready() else "not connected, not restored, or a partition halted",
        )
    except OSError:
        log.error("port_taken", port=settings.metrics_port, detail="set SIYU_METRICS_PORT to a free port")
        return 78
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
