"""Composition root of journey: contact and payment events in, facts and staff deltas out, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.journey.domain import CHANGES_WITHOUT_EFFECT, Customer, apply
from services.journey.metrics import JourneyMetrics, Result
from services.journey.settings import Settings
from siyu.events import ContactEvent, OrderFact, PaymentEvent, RelationshipFact, codec
from siyu.events.ids import customer_key, staff_key, unknown_customer_key
from siyu.ops.logging import get_logger
from siyu.ops.processor import run_processor
from siyu.stream import Context, Processor, Record, Step

NAME = "journey"
CONTACT_EVENTS, PAYMENT_EVENTS = "contact.events", "payment.events"
RELATIONSHIP_FACTS, ORDER_FACTS, STAFF_DELTAS = "relationship.facts", "order.facts", "staff.deltas"


def processor(settings: Settings, registry: CollectorRegistry) -> Processor[Customer]:
    """What the runtime runs."""
    return Processor(
        name=NAME,
        inputs=(CONTACT_EVENTS, PAYMENT_EVENTS),
        outputs=frozenset({RELATIONSHIP_FACTS, ORDER_FACTS, STAFF_DELTAS}),
        codec=codec(),
        step=build_step(JourneyMetrics(registry), log_events=settings.log_events),
        state_type=Customer,
        state_version=1,
        dead_letters="dlq.journey",
    )


def build_step(metrics: JourneyMetrics, *, log_events: bool) -> Step[Customer]:
    """Fits the domain to the runtime: checks the key, sends each output where it belongs, leaves a line in the log."""
    log = get_logger()

    def step(key: str, record: Record, state: Customer | None, ctx: Context) -> Customer | None:
        event = record.value
        if not isinstance(event, ContactEvent | PaymentEvent):
            raise ValueError("neither a contact nor a payment event")
        if key != key_of(event):
            # Applied under a foreign key it would end in another customer's state.
            raise ValueError("the record's key is not its customer's")
        new, outputs = apply(state, event)
        for output in outputs:
            if isinstance(output, RelationshipFact):
                ctx.emit(RELATIONSHIP_FACTS, key, output)
            elif isinstance(output, OrderFact):
                ctx.emit(ORDER_FACTS, key, output)
            else:
                ctx.emit(STAFF_DELTAS, staff_key(output.corp_id, output.staff_id), output)

        result: Result = "applied"
        if new is state:
            result = "no_effect" if event.change in CHANGES_WITHOUT_EFFECT else "duplicate"
        metrics.event(event.change, result)
        if isinstance(event, ContactEvent) and len(outputs) > 1:
            metrics.recredited(sum(isinstance(output, OrderFact) for output in outputs))
        if log_events:
            log.info(
                "event_applied",
                event_id=event.event_id,
                corp_id=event.corp_id,
                event_type=event.change,
                duplicate=result == "duplicate",
                status=result,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
        return new

    return step


def key_of(event: ContactEvent | PaymentEvent) -> str:
    """The key the event must travel under."""
    if isinstance(event, PaymentEvent) and not event.customer_id:
        return unknown_customer_key(event.corp_id, event.order_id)
    return customer_key(event.corp_id, event.customer_id)


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; the exit code of the process."""
    return run_processor(settings, processor)
