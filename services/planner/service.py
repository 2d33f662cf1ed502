"""Composition root of the planner: contact events in, actions out, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.planner.domain import CustomerPlan, plan
from services.planner.metrics import PlannerMetrics, Result
from services.planner.rules import RuleError, WelcomeRule, load_welcome_rule
from services.planner.settings import Settings
from siyu.events import ContactEvent, codec, schemas_dir
from siyu.events.ids import customer_key
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.processor import NEEDS_A_PERSON, run_processor
from siyu.stream import Context, Processor, Record, Step
from siyu.wecom.endpoints import quota_scope

NAME = "planner"
CONTACT_EVENTS = "contact.events"
ACTIONS_WELCOME = "actions.welcome"


def processor(settings: Settings, registry: CollectorRegistry) -> Processor[CustomerPlan]:
    """What the runtime runs. Raises RuleError."""
    rule = load_welcome_rule(schemas_dir() / "rules" / "welcome.yaml")
    return Processor(
        name=NAME,
        inputs=(CONTACT_EVENTS,),
        outputs=frozenset({ACTIONS_WELCOME}),
        codec=codec(),
        step=build_step(rule, PlannerMetrics(registry), log_events=settings.log_events),
        state_type=CustomerPlan,
        state_version=1,
        dead_letters="dlq.planner",
    )


def build_step(rule: WelcomeRule, metrics: PlannerMetrics, *, log_events: bool) -> Step[CustomerPlan]:
    """Fits the domain to the runtime: checks the key, sends the action to its scope, leaves a line in the log."""
    log = get_logger()

    def step(key: str, record: Record, state: CustomerPlan | None, ctx: Context) -> CustomerPlan | None:
        event = record.value
        if not isinstance(event, ContactEvent):
            raise ValueError("not a contact event")
        if key != customer_key(event.corp_id, event.customer_id):
            raise ValueError("the record's key is not its customer's")
        new, action = plan(state, event, rule)
        if action is not None:
            ctx.emit(ACTIONS_WELCOME, quota_scope(action.corp_id, action.endpoint), action)
            if log_events:
                log.info(
                    "action_planned",
                    event_id=event.event_id,
                    action_id=action.action_id,
                    corp_id=event.corp_id,
                    endpoint=action.endpoint,
                    reason=action.reason,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                )
        result: Result = "no_rule"
        if action is not None:
            result = "planned"
        elif event.change in ("add", "add_half") and event.welcome_code:
            result = "duplicate"
        metrics.event(result)
        return new

    return step


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; the exit code of the process."""
    try:
        # Small batches: a welcome code lives 20 s, and a person is waiting.
        return run_processor(settings, processor, batch_records=1_000, batch_ms=50)
    except RuleError as error:
        configure_logging(NAME, settings.log_level)
        get_logger().error("rule_refused", error=type(error).__name__, error_detail=str(error))
        return NEEDS_A_PERSON
