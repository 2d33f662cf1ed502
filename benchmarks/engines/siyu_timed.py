"""``siyu.stream`` with a stopwatch at the seams of its loop; otherwise as ``siyu_stream``.

What is called once a batch is measured in CPU time of the loop's thread. Asking for that costs a microsecond, too much
for what is called once a record: there it is the clock on the wall, a call that took longer than a millisecond left out
(the thread was not running), and what the stopwatch itself costs taken off.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer
from prometheus_client import CollectorRegistry

from benchmarks.engines.siyu_stream import processor
from benchmarks.harness.worker import Job, MarkingCodec, stop_event
from siyu.stream import Runtime, StreamSettings, runtime
from siyu.stream.partition import Partition
from siyu.stream.state import StateCodec

WHOLE: dict[tuple[Any, str], str] = {
    (Runtime, "_sort"): "fetch",
    (Runtime, "_transact"): "transaction",
    (Runtime, "_write_back"): "disk write",
}
BATCH: dict[tuple[Any, str], str] = {
    (Partition, "read"): "read",
    (Partition, "process"): "process",
    (Partition, "_load"): "state read",
    (Runtime, "_produce"): "produce",
    (Runtime, "_flush"): "flush",
    (Runtime, "_send_offsets"): "offsets",
    (Runtime, "_commit"): "commit",
}
RECORD = ("decode", "step", "state encode", "output encode")
INSIDE = {
    "read": ("decode",),
    "process": ("step", "state encode", "output encode"),
}
"""What is called once a record and where: what is called once a batch finds out by itself what it contains."""
_INTERRUPTED_S = 0.001
_CALIBRATIONS, _CALLS = 20, 10_000


class Stopwatch:
    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._inner = threading.local()
        self.waited = 0.0
        """Seconds in which the thread did not run, within what ``whole`` takes."""

    def record(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        seconds, calls, now = self.seconds, self.calls, time.perf_counter

        def call(*args: Any) -> Any:
            began = now()
            result = function(*args)
            if (took := now() - began) < _INTERRUPTED_S:
                seconds[part] += took
                calls[part] += 1
            return result

        return call

    def batch(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Without what is timed like this within it, in the same thread."""
        inner = self._inner

        def call(*args: Any) -> Any:
            outside, inner.seconds = getattr(inner, "seconds", 0.0), 0.0
            began = time.thread_time()
            result = function(*args)
            took = time.thread_time() - began
            self.seconds[part] += took - inner.seconds
            inner.seconds = outside + took
            return result

        return call

    def whole(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a part that is contained in no other, with the time it waits."""
        timed = self.batch(part, function)

        def call(*args: Any) -> Any:
            began, began_here = time.perf_counter(), time.thread_time()
            result = timed(*args)
            # A fetch that brings nothing waits for more, once all is drained: that is nobody's cost.
            if result != []:
                self.waited += time.perf_counter() - began - (time.thread_time() - began_here)
            return result

        return call

    def net(self) -> dict[str, float]:
        """Seconds of each part without the records' parts it contains and without what measuring them cost."""
        inside, around = _own_cost()
        return {
            part: spent
            - self.calls[part] * inside
            - sum(self.seconds[other] + self.calls[other] * around for other in INSIDE.get(part, ()))
            for part, spent in list(self.seconds.items())
        }


def _own_cost() -> tuple[float, float]:
    """Seconds that ``record`` adds within the time it takes, and around it: the least of several, the undisturbed."""

    def nothing(_: object) -> None:
        return None

    def seconds_a_call(function: Callable[[object], None]) -> float:
        began = time.perf_counter()
        for _ in range(_CALLS):
            function(None)
        return (time.perf_counter() - began) / _CALLS

    plain = min(seconds_a_call(nothing) for _ in range(_CALIBRATIONS))
    taken, whole = [], []
    for _ in range(_CALIBRATIONS):
        watch = Stopwatch()
        whole.append(seconds_a_call(watch.record("nothing", nothing)))
        taken.append(watch.seconds["nothing"] / _CALLS)
    return max(0.0, min(taken) - plain), max(0.0, min(whole) - min(taken))


def main() -> None:
    job, watch = Job.load(), Stopwatch()
    for (owner, name), part in WHOLE.items():
        setattr(owner, name, watch.whole(part, getattr(owner, name)))
    for (owner, name), part in BATCH.items():
        setattr(owner, name, watch.batch(part, getattr(owner, name)))
    encode = StateCodec.encode
    StateCodec.encode = watch.record("state encode", encode)  # type: ignore[method-assign]

    class TimedConsumer(Consumer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.fetch = watch.whole("fetch", super().consume)

        def consume(self, *args: Any) -> Any:
            return self.fetch(*args)

    runtime.Consumer = TimedConsumer  # type: ignore[attr-defined]
    marking = MarkingCodec(job)
    plain = processor(job)

    class TimedCodec:
        decode = staticmethod(watch.record("decode", lambda data: marking.decode(data)))
        encode = staticmethod(watch.record("output encode", marking.encode))

    timed = replace(plain, codec=TimedCodec(), step=watch.record("step", plain.step))
    settings = StreamSettings(bootstrap=job.bootstrap, state_dir=Path(job.folder) / "state", instance=str(job.instance))
    Runtime(timed, settings, registry=CollectorRegistry()).run(stop_event())
    job.report({"seconds": watch.net(), "waited": watch.waited})


if __name__ == "__main__":
    main()
