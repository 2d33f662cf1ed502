"""Composition root of performance: staff deltas in, the staff member's day as it stands out, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.performance.domain import StaffMember, apply
from services.performance.settings import Settings
from siyu.events import StaffDelta, codec
from siyu.events.ids import staff_key
from siyu.ops.logging import get_logger
from siyu.ops.processor import run_processor
from siyu.stream import Context, Processor, Record, Step

NAME = "performance"
STAFF_DELTAS, SNAPSHOTS = "staff.deltas", "performance.snapshots"


def processor(settings: Settings, registry: CollectorRegistry) -> Processor[StaffMember]:
    """What the runtime runs."""
    return Processor(
        name=NAME,
        inputs=(STAFF_DELTAS,),
        outputs=frozenset({SNAPSHOTS}),
        codec=codec(),
        step=build_step(log_events=settings.log_events),
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
    return run_processor(settings, processor)
