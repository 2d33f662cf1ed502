"""A million customers of average state on one worker: memory while it works over all of them, bytes on its disk.

States are those of ``harness/population.py`` (journey's mix, 280 bytes in the mean); the worker restores them from the
changelog into an empty disk and then processes events spread evenly over all customers, the worst case for its cache.
Memory is sampled the whole time: *resident* (RSS) while it processes events, the largest of the restore, and the
largest of all. *On disk* are all files of its stores when it has stopped, and once RocksDB has compacted them, beside
the encoded size: keys and values. Ids made by a program compress better than real ones, so the same states are also
written without compression: real ones lie between the two.

States on disk are compared with those of a sequential program: a wrong one ends in status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rocksdict import DBCompressionType, Options, Rdict, WriteBatch

from benchmarks.harness.broker import Cluster
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.lived import lived, wait
from benchmarks.harness.measure import measure
from benchmarks.harness.memory import Memory, watching
from benchmarks.harness.population import Population, disk_bytes, stores
from benchmarks.harness.steps import STEPS
from siyu.stream.store import RESERVED

_RESTORE_S = 900
_SLOWEST_PER_S = 500
_CHUNK = 10_000


def memory(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    population = Population(options.customers, options.events, options.seed)
    say(f"laying down the states of {options.customers} customers, {options.events} events")
    with lived(cluster, broker_pid, "memory", options.step, population) as run:
        run.add_events()
        say("restoring")
        worker = run.start()
        try:
            with watching(worker.pid) as restoring:
                wait(worker, "first record", lambda: worker.mark() is not None, _RESTORE_S)
            say("processing")
            with watching(worker.pid) as processing:
                drained = measure(cluster, [worker], 60 + options.events / _SLOWEST_PER_S)
        finally:
            worker.kill()
        stopped = disk_bytes(run.state_folder)
        say("checking, compacting")
        run.check()
        keys, encoded = compact(run.state_folder)
        compacted, plain = disk_bytes(run.state_folder), without_compression(run.state_folder)
    disk = {"stopped": stopped, "compacted": compacted, "compacted_without_compression": plain}
    return {
        "step": options.step,
        "customers": options.customers,
        "states": keys,
        "mean_bytes": round(encoded / keys, 1),
        "events": drained.events,
        "events_per_s": round(drained.events / drained.seconds),
        "processing_mb": spread(processing),
        "restoring_mb": spread(restoring),
        "largest_resident_mb": drained.peak_mb,
        "encoded_mb": round(encoded / 1e6, 1),
        "disk_mb": {name: round(size / 1e6, 1) for name, size in disk.items()},
        "disk_over_encoded": {name: round(size / encoded, 3) for name, size in disk.items()},
    }


def spread(memory: Memory) -> dict[str, float]:
    return {
        "resident_median": statistics.median(memory.resident),
        "resident_largest": max(memory.resident),
        "pss_median": statistics.median(memory.share),
    }


def compact(folder: Path) -> tuple[int, int]:
    """Has RocksDB merge everything, by the stores' own options. Returns how many states, bytes of keys and values."""
    keys = size = 0
    for path in stores(folder):
        options, families = Options.load_latest(str(path))
        store = Rdict(str(path), options, families)
        store.compact_range(None, None)
        for key, value in states(store):
            keys += 1
            size += len(key) + len(value)
        store.close()
    return keys, size


def without_compression(folder: Path) -> int:
    """What the same states take when nothing in them can be compressed."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.none())
    copied = folder.with_name("copy")
    copy = Rdict(str(copied), options)
    for path in stores(folder):
        store = Rdict(str(path))
        copying = states(store)
        while chunk := list(islice(copying, _CHUNK)):
            batch = WriteBatch(raw_mode=True)
            for key, value in chunk:
                batch.put(key, value)
            copy.write(batch)
        store.close()
    copy.compact_range(None, None)
    copy.close()
    return disk_bytes(copied)


def states(store: Rdict) -> Iterator[tuple[bytes, bytes]]:
    found: Iterator[tuple[bytes, bytes]] = store.items()  # type: ignore[assignment]
    return ((key, value) for key, value in found if not key.startswith(RESERVED))


def table(found: Figures) -> str:
    processing, restoring, disk, over = (
        found[name] for name in ("processing_mb", "restoring_mb", "disk_mb", "disk_over_encoded")
    )
    return (
        f"{found['step']}, {found['states']} states of {found['mean_bytes']:.0f} bytes with their keys, "
        f"{found['events']} events over all of them\n"
        f"processing: {processing['resident_median']:.0f} MB resident, at most {processing['resident_largest']:.0f}, "
        f"PSS {processing['pss_median']:.0f}; restoring: at most {restoring['resident_largest']:.0f}; "
        f"largest of all {found['largest_resident_mb']:.0f}\n"
        f"disk: {disk['stopped']:.0f} MB as stopped ({over['stopped']:.2f} of {found['encoded_mb']:.0f} MB encoded), "
        f"{disk['compacted']:.0f} MB compacted ({over['compacted']:.2f}), "
        f"{over['compacted_without_compression']:.2f} if nothing could be compressed"
    )


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000, help="with states (default: %(default)s)")
    parser.add_argument("--events", type=int, default=300_000, help="over all of them (default: %(default)s)")
    parser.add_argument("--step", choices=list(STEPS), default="journey")
    return show(parser, memory, table)


if __name__ == "__main__":
    sys.exit(main())
