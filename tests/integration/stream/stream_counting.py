"""The processor of these tests, and a worker process that runs it.

Every input record has an id and adds one to its key's count; its output tells id, key and the new count. So the
outputs prove by themselves what happened: each id once, and each key's counts 1, 2, 3 … without gap or repetition.
A lost state shows as a repeated count, a record processed twice as a repeated id.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
from prometheus_client import CollectorRegistry

from siyu.stream import Context, Processor, Record, Runtime, StreamError, StreamSettings


class Event(msgspec.Struct):
    """One input: ``do`` is what the step shall do with it."""

    id: int
    do: str = "count"


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


def processor(name: str, **changes: object) -> Processor[Count]:
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
        ctx.emit(output, key, Counted(event.id, key, count, ctx.now))
        return Count(count)

    fields: dict[str, object] = {
        "name": name,
        "inputs": (f"{name}.in1", f"{name}.in2"),
        "outputs": frozenset({output}),
        "codec": json_codec,
        "step": step,
        "state_type": Count,
        "state_version": 1,
        "dead_letters": f"dlq.{name}",
    }
    return Processor(**{**fields, **changes})  # type: ignore[arg-type]


class FreezingRuntime(Runtime[Count]):
    """Stops itself (SIGSTOP) or dies (SIGKILL) once, the n-th time it reaches one point."""

    point = ""
    times = 0
    signal = signal.SIGSTOP

    def _reached(self, point: str) -> None:
        if point == self.point:
            self.times -= 1
            if self.times == 0:
                os.kill(os.getpid(), self.signal)


def main() -> int:
    options = json.loads(sys.argv[1])
    at = options.pop("at", None)
    options["state_dir"] = Path(options["state_dir"])
    name = options.pop("name")
    runtime = FreezingRuntime(processor(name), StreamSettings(**options), registry=CollectorRegistry())
    if at:
        number, runtime.point, runtime.times = at
        runtime.signal = signal.Signals(number)
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
