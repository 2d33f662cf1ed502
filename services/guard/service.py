"""Composition root of the guard: staff deltas and signals in, how far each account is trusted out, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.guard.domain import Account, Turn, apply_delta, apply_signal, review
from services.guard.metrics import GuardMetrics
from services.guard.settings import Settings
from siyu.events import GuardSignal, StaffDelta, codec, schemas_dir
from siyu.events.ids import staff_key
from siyu.guard.rules import RuleBook, RulesError, level_of, load_rules
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.processor import NEEDS_A_PERSON, run_processor
from siyu.stream import Context, Processor, Record, Timer

NAME = "guard"
STAFF_DELTAS, SIGNALS = "staff.deltas", "guard.signals"
STATE, AUDIT = "guard.state", "guard.audit"
REVIEW = "review"
MOST_AHEAD_MS = 3_600_000
"""A signal from further in the future is refused: it would end every cool-down that begins before then."""


def processor(settings: Settings, registry: CollectorRegistry) -> Processor[Account]:
    """What the runtime runs. Raises RulesError."""
    book = load_rules(schemas_dir() / "rules" / "guard.yaml")
    desk = Desk(book, GuardMetrics(registry), log_events=settings.log_events, moved=settings.clock_file is not None)
    return Processor(
        name=NAME,
        inputs=(STAFF_DELTAS, SIGNALS),
        outputs=frozenset({STATE, AUDIT, SIGNALS}),
        codec=codec(),
        step=desk.step,
        on_timer=desk.on_timer,
        state_type=Account,
        state_version=1,
        dead_letters="dlq.guard",
    )


class Desk:
    """Fits the domain to the runtime: checks keys, keeps one timer a key, sends what was decided.

    Stream time is business time, unless a clock file moves business time (``moved``): then only the events tell it, and
    a timer waits for as long as business time would at its natural rate. Executors end a cool-down by its ``until_ms``
    either way.
    """

    def __init__(self, book: RuleBook, metrics: GuardMetrics, *, log_events: bool, moved: bool) -> None:
        self._book = book
        self._metrics = metrics
        self._log_events = log_events
        self._moved = moved
        self._log = get_logger()

    def step(self, key: str, record: Record, state: Account | None, ctx: Context) -> Account | None:
        """One delta or signal."""
        event = record.value
        if not isinstance(event, StaffDelta | GuardSignal):
            raise ValueError("neither a staff delta nor a guard signal")
        if key != staff_key(event.corp_id, event.staff_id):
            # Applied under a foreign key it would decide about somebody else.
            raise ValueError("the record's key is not its account's")
        now_ms = 0 if self._moved else ctx.now
        if now_ms and event.event_time_ms > now_ms + MOST_AHEAD_MS:
            raise ValueError("event time too far in the future")
        if isinstance(event, StaffDelta):
            kind, turn = "delta", apply_delta(state, event, self._book, now_ms)
        else:
            kind, turn = event.kind, apply_signal(state, event, self._book, now_ms)
            self._metrics.behind.set(max(0, now_ms - event.event_time_ms) / 1000)
        self._metrics.inputs.labels(kind, turn.result).inc()
        if turn.result in ("duplicate", "without_effect"):
            return state
        self._send(key, turn, ctx)
        if self._log_events and turn.audits:
            for audit in turn.audits:
                self._log.info(
                    "guard_decided",
                    event_id=audit.signal_id,
                    corp_id=event.corp_id,
                    status=audit.what,
                    reason=turn.account.published.reason,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                )
        return turn.account

    def on_timer(self, key: str, timer: Timer, state: Account, ctx: Context) -> Account | None:
        """Time alone may have changed how the account stands."""
        if timer.name != REVIEW:
            raise ValueError("a timer nobody sets")
        corp_id, _, member = key.partition("|")
        turn = review(state, corp_id, member, self._book, state.review_ms if self._moved else timer.due_ms)
        self._send(key, turn, ctx)
        return turn.account

    def _send(self, key: str, turn: Turn, ctx: Context) -> None:
        if turn.state is not None:
            ctx.emit(STATE, key, turn.state)
        for audit in turn.audits:
            ctx.emit(AUDIT, key, audit)
            self._metrics.decided(level_of(audit.staff_id), audit.what)
        for signal in turn.tells:
            ctx.emit(SIGNALS, staff_key(signal.corp_id, signal.staff_id), signal)
            self._metrics.tells.labels(signal.kind).inc()
        account = turn.account
        if not account.review_ms:
            ctx.cancel_timer(REVIEW)
            return
        at = account.review_ms - account.now_ms + ctx.now if self._moved else account.review_ms
        set_to = ctx.timers.get(REVIEW)
        # An earlier look does no harm, and a timer that moves with every signal is a write for nothing. Where business
        # time is moved, the timer's own time does not tell it, so there it is never early.
        if set_to is None or self._moved or not ctx.now < set_to <= at:
            ctx.set_timer(REVIEW, max(at, ctx.now))


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; the exit code of the process."""
    try:
        # Small batches: somebody is to be stopped within seconds.
        return run_processor(settings, processor, batch_records=2_000, batch_ms=50)
    except RulesError as error:
        configure_logging(NAME, settings.log_level)
        get_logger().error("rules_refused", error=type(error).__name__, error_detail=str(error))
        return NEEDS_A_PERSON
