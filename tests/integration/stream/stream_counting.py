"""The processor of these tests, and a worker process that runs it, bare or as a service.

Every input record has an id and adds one to its key's count; its output tells id, key and the new count. So the
outputs prove by themselves what happened: each id once, and each key's counts 1, 2, 3 … without gap or repetition.
A lost state shows as a repeated count, a record processed twice as a repeated id.

A record that says ``later`` counts only when its timer fires, under the same id: a lost timer is then a lost id, and
one that fires twice a repeated one.
"""

import json
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import CollectorRegistry

from siyu.stream import Context, Processor, Record, Runtime, StreamError, StreamSettings, Timer, clients
from siyu.stream.changelog import READ_COMMITTED, Bounds, log_bounds
from siyu.stream.takeover import Committed, Takeover

LOOP = ("fetched", "began", "produced", "flushed", "offsets sent", "committed", "stored")
TAKEOVER = ("offsets asked", "end asked", "stores open", "restoring", "restored", "assigned")


class Event(msgspec.Struct):
    """One input: ``do`` is what the step shall do with it."""

    id: int
    do: str = "count"
    at: int = 0
    """When the timer is due, epoch ms."""
    timer: str = ""
    """Its name where that is not the id: of one to move or to cancel."""


class Counted(msgspec.Struct):
    """One output."""

    id: int
    key: str
    count: int
    now: int


class Count(msgspec.Struct, array_like=True):
    """The state of a key."""

    count: int


_decode_event = msgspec.json.Decoder(Event).decode
json_codec = SimpleNamespace(decode=_decode_event, encode=msgspec.json.encode)


def processor(name: str, *, timers: bool = False, **changes: object) -> Processor[Count]:
    output = f"{name}.out"

    def step(key: str, record: Record, state: Count | None, ctx: Context) -> Count | None:
        event: Event = record.value
        count = (state.count if state else 0) + 1
        match event.do:
            case "raise":
                ctx.emit(output, key, Counted(event.id, key, count, ctx.now))
                raise LookupError("a name that must not reach a header")
            case "delete":
                return None
            case "ignore":
                return state
            case "stray":
                ctx.emit("undeclared", key, event)
            case "later":
                ctx.set_timer(event.timer or str(event.id), event.at)
                return state or Count(0)
            case "cancel":
                ctx.cancel_timer(event.timer)
                return state
        ctx.emit(output, key, Counted(event.id, key, count, ctx.now))
        return Count(count)

    def on_timer(key: str, timer: Timer, state: Count, ctx: Context) -> Count:
        """A timer is named by the id it counts under; one that is named otherwise raises."""
        ctx.emit(output, key, Counted(int(timer.name), key, state.count + 1, ctx.now))
        return Count(state.count + 1)

    fields: dict[str, object] = {
        "name": name,
        "inputs": (f"{name}.in1", f"{name}.in2"),
        "outputs": frozenset({output}),
        "codec": json_codec,
        "step": step,
        "on_timer": on_timer if timers else None,
        "state_type": Count,
        "state_version": 1,
        "dead_letters": f"dlq.{name}",
    }
    return Processor(**{**fields, **changes})  # type: ignore[arg-type]


class FragileTakeover(Takeover[Count]):
    """One that can be run without one of the rules it rests on."""

    without: frozenset[str]

    def ask(self, owned: list[int]) -> tuple[Committed, Bounds]:
        if "offsets before the end" not in self.without:
            return super().ask(owned)
        bounds = self.waiting("changelog end", lambda: self.changelog_bounds(owned))
        self.reached("end asked")
        committed = self.waiting("committed offsets", lambda: self.committed(owned))
        self.reached("offsets asked")
        return committed, bounds

    def committed(self, owned: list[int]) -> Committed:
        if "stable offsets" not in self.without:
            return super().committed(owned)
        asker = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap,
                "group.id": self.processor.name,
                "isolation.level": "read_uncommitted",
            }
        )
        asked = [TopicPartition(topic, number) for topic in self.processor.inputs for number in owned]
        answer = asker.committed(asked, timeout=10)
        asker.close()
        return {(tp.topic, tp.partition): (tp.offset, 0) for tp in answer if tp.offset >= 0}

    def changelog_bounds(self, owned: list[int]) -> Bounds:
        if "uncommitted end" not in self.without:
            return super().changelog_bounds(owned)
        return log_bounds(self.admin, self.processor.changelog, owned, READ_COMMITTED)


class FragileRuntime(Runtime[Count]):
    """Freezes or dies at chosen points, tells in the log which steps of a takeover it has reached, and can be run
    without one of the rules a takeover rests on."""

    faults: list[tuple[int, str, int]]
    """(signal or 0 for none, point, the how manieth time it is reached), one after the other."""
    without: frozenset[str]
    """The rules that are switched off."""

    def _reached(self, point: str) -> None:
        if point in TAKEOVER:
            print(f"reached: {point}", flush=True)
        if self.faults and self.faults[0][1] == point:
            number, _, times = self.faults[0]
            if times > 1:
                self.faults[0] = (number, point, times - 1)
            else:
                del self.faults[0]
                # To this thread: sent to the process, another may take it, and this one runs on meanwhile.
                signal.pthread_kill(threading.get_ident(), number)

    def _flush(self) -> None:
        if "flush before the offsets" not in self.without:
            super()._flush()

    def _takeover(self, assignment: int) -> Takeover[Count]:
        takeover = super()._takeover(assignment)
        takeover.__class__ = FragileTakeover
        assert isinstance(takeover, FragileTakeover)
        takeover.without = self.without
        return takeover


def hold_back_produced() -> None:
    """Has the producer keep records until it is told to flush, as a slow network would."""
    ordinary = clients.producer
    clients.producer = lambda *args: {**ordinary(*args), "linger.ms": 30_000}  # type: ignore[assignment]


def main() -> int:
    options = json.loads(sys.argv[1])
    faults, without = options.pop("faults", []), options.pop("without", [])
    if options.pop("hold_back", False):
        hold_back_produced()
    options["state_dir"] = Path(options["state_dir"])
    counting = processor(options.pop("name"), timers=options.pop("timers", False))
    if port := options.pop("service_port", 0):
        # Here, for they double the start of a worker, and most are bare.
        from siyu.ops.processor import run_processor
        from siyu.ops.settings import ProcessorSettings

        served = ProcessorSettings(
            kafka_bootstrap=options["bootstrap"], state_dir=options["state_dir"], metrics_port=port
        )
        return run_processor(served, lambda _settings, _registry: counting)
    runtime = FragileRuntime(counting, StreamSettings(**options), registry=CollectorRegistry())
    runtime.faults, runtime.without = [tuple(fault) for fault in faults], frozenset(without)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        runtime.run(stop)
    except StreamError as error:
        print(f"ended: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
