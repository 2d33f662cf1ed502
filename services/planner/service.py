"""Composition root of the planner: contact events in, actions out, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.planner.domain import CustomerPlan, plan
from services.planner.metrics import PlannerMetrics, Result
from services.planner.rules import RuleError, WelcomeRule, load_welcome_rule
from services.planner.settings import Settings
from siyu.events import ContactEvent, codec, schemas_dir
from siyu.events.ids import customer_key, quota_scope
from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import stop_event
from siyu.stream import Context, Processor, Record, Runtime, Step, StreamError, StreamSettings

NAME = "planner"
CONTACT_EVENTS = "contact.events"
ACTIONS_WELCOME = "actions.welcome"


def processor(rule: WelcomeRule, metrics: PlannerMetrics, *, log_events: bool) -> Processor[CustomerPlan]:
    """What the runtime runs."""
    return Processor(
        name=NAME,
        inputs=(CONTACT_EVENTS,),
        outputs=frozenset({ACTIONS_WELCOME}),
        codec=codec(),
        step=build_step(rule, metrics, log_events=log_events),
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
    configure_logging(NAME, settings.log_level)
    log = get_logger()
    stop = stop_event()
    registry = CollectorRegistry()
    try:
        rule = load_welcome_rule(schemas_dir() / "rules" / "welcome.yaml")
    except RuleError as error:
        log.error("rule_refused", error=type(error).__name__, error_detail=str(error))
        return 78
    runtime = Runtime(
        processor(rule, PlannerMetrics(registry), log_events=settings.log_events),
        # Small batches: a welcome code lives 20 s, and a person is waiting.
        StreamSettings(
            settings.kafka_bootstrap, settings.state_dir, settings.instance, batch_records=1_000, batch_ms=50
        ),
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
