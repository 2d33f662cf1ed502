"""(a) ``siyu.stream`` with its default settings: exactly once, states in RocksDB, changed states to the changelog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.harness.steps import STEPS
from benchmarks.harness.worker import Job, MarkingCodec, stop_event
from siyu.stream import Context, Processor, Record, Runtime, StreamSettings


def processor(job: Job) -> Processor[Any]:
    step = STEPS[job.step]
    apply = step.build({name: job.output(name) for name in step.outputs})

    def on_record(key: str, record: Record, state: Any, ctx: Context) -> Any:
        new, emitted = apply(key, state, record.value)
        for topic, out_key, value in emitted:
            ctx.emit(topic, out_key, value)
        return new

    return Processor(
        name=job.run,
        inputs=tuple(job.inputs.values()),
        outputs=frozenset(job.output(name) for name in step.outputs),
        codec=MarkingCodec(job),
        step=on_record,
        state_type=step.state_type,
        state_version=1,
        dead_letters=job.output("dead"),
    )


def main() -> None:
    job = Job.load()
    registry = CollectorRegistry()
    settings = StreamSettings(bootstrap=job.bootstrap, state_dir=Path(job.folder) / "state", instance=str(job.instance))
    Runtime(processor(job), settings, registry=registry).run(stop_event())
    job.report({"metrics": sums(registry)})


def sums(registry: CollectorRegistry) -> dict[str, float]:
    """Every metric of the runtime added up over its labels, by name; histograms as their sum and count."""
    found: dict[str, float] = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_created")):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


if __name__ == "__main__":
    main()
