"""A stage for one processor on the real broker: its topics, records to put in, and a check of what came out."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import stream_counting as counting
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka.cimpl import murmur2
from prometheus_client import CollectorRegistry

from deploy.local import launch
from siyu.stream import Processor, Runtime, StreamSettings

PATIENCE_S = 40.0


def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Waits for a condition; only a defect makes it take longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class Running:
    """A runtime in a thread of this process."""

    def __init__(self, runtime: Runtime[counting.Count], registry: CollectorRegistry) -> None:
        self.runtime = runtime
        self.error: BaseException | None = None
        self._registry = registry
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runtime.run(self._stop)
        except BaseException as error:
            self.error = error

    def metric(self, name: str) -> float:
        wanted = f"siyu_stream_{name}"
        return sum(s.value for m in self._registry.collect() for s in m.samples if s.name == wanted)

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def settled(self) -> "Running":
        """Ready, or ended."""
        eventually(lambda: self.runtime.ready() or self.ended(), "the runtime is ready")
        return self

    def ready(self) -> "Running":
        self.settled()
        assert not self.error, self.error
        return self

    def stop(self) -> None:
        """Asks for a graceful stop and waits for it; what the run raised is in ``error``."""
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert self.ended(), "the runtime did not stop"


class Stage:
    """One processor's topics and what happens on them."""

    def __init__(self, bootstrap: str, name: str, disk: Path) -> None:
        self.bootstrap = bootstrap
        self.name = name
        self.disk = disk
        self.inputs = (f"{name}.in1", f"{name}.in2")
        self.output, self.changelog, self.dlq = f"{name}.out", f"{name}.changelog", f"dlq.{name}"
        self.sent = 0
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                # What is sent again over a broker's restart is still one record.
                "enable.idempotence": True,
            }
        )
        self._running: list[Running] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self._reader: Consumer | None = None
        self.seen: list[counting.Counted] = []

    def create_topics(self, partitions: int = 4, **other: int) -> "Stage":
        """``other``: partition counts that differ, by the last part of the topic's name."""
        topics = {topic: {} for topic in (*self.inputs, self.output, self.dlq)} | {
            self.changelog: {"cleanup.policy": "compact"}
        }
        new = [
            NewTopic(topic, other.get(topic.rsplit(".", 1)[-1], partitions), 1, config=config)
            for topic, config in topics.items()
        ]
        for created in self.admin.create_topics(new).values():
            created.result()
        self._visible(*topics)
        return self

    def create_table(self, topic: str, partitions: int) -> None:
        """A compacted topic for a global table."""
        new = NewTopic(topic, partitions, 1, config={"cleanup.policy": "compact"})
        self.admin.create_topics([new])[topic].result()
        self._visible(topic)

    def _visible(self, *topics: str) -> None:
        """Waits until the broker shows topics that were created, and leads them: it answers a little earlier."""

        def are_led() -> bool:
            known = self.admin.list_topics(timeout=10).topics
            if not set(topics) <= set(known):
                return False
            ends = {TopicPartition(topic, p): OffsetSpec.latest() for topic in topics for p in known[topic].partitions}
            try:
                return all(asked.result().offset >= 0 for asked in self.admin.list_offsets(ends).values())
            except KafkaException:
                return False

        eventually(are_led, "topics are visible")

    def send(self, count: int, keys: int = 50, do: str = "count", at: int = 0, **message: object) -> None:
        """Puts ``count`` events into the two inputs in turn, over ``keys`` keys."""
        for n in range(self.sent, self.sent + count):
            event = msgspec.json.encode(counting.Event(n, do, at))
            self._producer.produce(self.inputs[n % 2], **{"key": f"k{n % keys}", "value": event, **message})
        self.sent += count
        assert self._producer.flush(30) == 0

    @contextmanager
    def load(self) -> Iterator[None]:
        """Goes on sending until the end of the block."""
        enough = threading.Event()

        def send() -> None:
            while not enough.wait(0.02):
                self.send(20)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "records could not be sent"

    def put(self, number: int, do: str = "count", at: int = 0, *, key: str = "k0", timer: str = "", stamp: int) -> None:
        """Puts in one event of one key at one time."""
        event = msgspec.json.encode(counting.Event(number, do, at, timer))
        self.send_raw(event, key.encode(), timestamp=stamp)

    def send_raw(self, value: bytes | None, key: bytes | None = b"k", topic: str = "", **message: object) -> None:
        self._producer.produce(topic or self.inputs[0], value, key, **message)
        assert self._producer.flush(30) == 0

    # -- members ---------------------------------------------------------------------------------------------

    def settings(self, instance: str = "0", **changes: object) -> StreamSettings:
        fields: dict[str, object] = {
            "bootstrap": self.bootstrap,
            "state_dir": self.disk / "disk",
            "instance": instance,
            "batch_ms": 20,
            "session_timeout_ms": 2_000,
        }
        return StreamSettings(**{**fields, **changes})  # type: ignore[arg-type]

    def run(
        self, instance: str = "0", processor: Processor[counting.Count] | None = None, **changes: object
    ) -> Running:
        """A member in this process."""
        registry = CollectorRegistry()
        runtime = Runtime(
            processor or counting.processor(self.name), self.settings(instance, **changes), registry=registry
        )
        self._running.append(Running(runtime, registry))
        return self._running[-1]

    def worker(self, instance: str = "0", **changes: object) -> subprocess.Popen[bytes]:
        """A member in a process of its own, each instance with a disk of its own."""
        options = {
            "name": self.name,
            "bootstrap": self.bootstrap,
            "state_dir": str(self.disk / f"disk{instance}"),
            "instance": instance,
            "batch_records": 100,
            "batch_ms": 20,
            "session_timeout_ms": 1_500,
            "transaction_timeout_ms": 3_000,
            **changes,
        }
        with (self.disk / f"worker{instance}.log").open("ab") as log:
            # Even a frozen one dies with the test's process.
            command = launch.command(sys.executable, counting.__file__, json.dumps(options))
            worker = subprocess.Popen(command, stdout=log, stderr=log)
        self._workers.append(worker)
        return worker

    def log(self, instance: str) -> str:
        return (self.disk / f"worker{instance}.log").read_text()

    def await_log(self, instance: str, text: str) -> None:
        """Waits until a worker has said something."""
        eventually(lambda: text in self.log(instance), f"worker {instance} says {text!r}")

    def owned_by(self, instance: str) -> list[int]:
        """The partitions a worker has taken over and not given up since."""
        told = re.findall(r"(partitions_\w+) .*partitions=\[([\d, ]*)\]", self.log(instance))
        what, numbers = told[-1] if told else ("", "")
        return [int(number) for number in numbers.split(",")] if what == "partitions_taken_over" else []

    def end_transaction_of(self, instance: str) -> None:
        """Aborts what a dead worker has left open, as its next start would."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": f"{self.name}-{instance}",
                "transaction.timeout.ms": 60_000,
            }
        )
        producer.init_transactions(30)

    # -- what came out ---------------------------------------------------------------------------------------

    def read(self, topic: str, isolation: str = "read_committed") -> list[Message]:
        """Everything committed (or, read uncommitted, everything) in a topic right now."""
        reader = self._new_reader(topic, isolation)
        ends = {p: reader.get_watermark_offsets(TopicPartition(topic, p))[1] for p in self._partitions(topic)}
        left, messages = {p for p, end in ends.items() if end}, []
        while left:
            for message in reader.consume(1000, 0.2):
                if message.error():
                    assert message.error().code() == KafkaError._PARTITION_EOF
                    if message.offset() >= ends[message.partition()]:
                        left.discard(message.partition())
                else:
                    messages.append(message)
        reader.close()
        return messages

    def end(self, topic: str, partition: int) -> int:
        """The next offset of a partition."""
        reader = self._new_reader(topic)
        _, end = reader.get_watermark_offsets(TopicPartition(topic, partition))
        reader.close()
        return int(end)

    def pending_keys(self, topic: str) -> set[bytes]:
        """Keys of the records in a topic whose transaction is still open."""
        committed = {(m.partition(), m.offset()) for m in self.read(topic)}
        return {m.key() for m in self.read(topic, "read_uncommitted") if (m.partition(), m.offset()) not in committed}

    def _partitions(self, topic: str) -> list[int]:
        return list(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)

    def _new_reader(self, topic: str, isolation: str = "read_committed") -> Consumer:
        reader = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "test.reader",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        reader.assign([TopicPartition(topic, p, 0) for p in self._partitions(topic)])
        return reader

    def outputs(self, at_least: int) -> list[counting.Counted]:
        """Waits for so many committed outputs; returns all seen so far, in order per key."""
        self._reader = self._reader or self._new_reader(self.output)
        decode = msgspec.json.Decoder(counting.Counted).decode
        deadline = time.monotonic() + PATIENCE_S
        while len(self.seen) < at_least:
            ended = [running.error for running in self._running if running.error]
            assert time.monotonic() < deadline, f"{len(self.seen)} of {at_least} outputs; members ended with {ended}"
            self.seen += [decode(m.value()) for m in self._reader.consume(1000, 0.05) if not m.error()]
        return self.seen

    def assert_exact(self, count: int | None = None) -> None:
        """Every event once, every count of every key once and in order, and the changelog agrees."""
        expected = self.sent if count is None else count
        self.outputs(expected)
        assert self.faults(expected) == {}

    def faults(self, expected: int) -> dict[str, list[str]]:
        """What went wrong with the first ``expected`` events, by what is wrong."""
        outputs = [msgspec.json.decode(m.value(), type=counting.Counted) for m in self.read(self.output)]
        ids = Counter(out.id for out in outputs)
        counts = defaultdict(list)
        for out in outputs:
            counts[out.key].append(out.count)
        states = self.states()
        faults = {
            "lost": [str(n) for n in range(expected) if n not in ids],
            "doubled": [str(n) for n, times in ids.items() if times > 1],
            "unknown": [str(n) for n in ids if n >= expected],
            "states forgotten": [key for key, seen in counts.items() if seen != list(range(1, len(seen) + 1))],
            "changelog differs": [key for key in states | counts if states.get(key, 0) != len(counts[key])],
        }
        return {what: found for what, found in faults.items() if found}

    def states(self) -> dict[str, int]:
        """Key → count, from the changelog."""
        states: dict[str, int] = {}
        for message in self.read(self.changelog):
            key = message.key().decode()
            if message.value() is None:
                states.pop(key, None)
            else:
                # Two bytes of layout and version, then, in layout 1, the timers behind two bytes of their length.
                value = message.value()
                begin = 2 if value[0] == 0 else 4 + int.from_bytes(value[2:4], "big")
                states[key] = msgspec.msgpack.decode(value[begin:])[0]
        return states

    def committed(self) -> int:
        """Input records behind the group's committed offsets, as they are now: pending ones do not count."""
        asker = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.name, "isolation.level": "read_uncommitted"}
        )
        asked = [TopicPartition(topic, p) for topic in self.inputs for p in self._partitions(topic)]
        total = sum(tp.offset for tp in asker.committed(asked, timeout=10) if tp.offset > 0)
        asker.close()
        return total

    def lag(self) -> int:
        """Input records the group has not committed."""
        asker = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.name})
        tps = [TopicPartition(topic, p) for topic in self.inputs for p in self._partitions(topic)]
        ends = sum(asker.get_watermark_offsets(tp)[1] for tp in tps)
        asker.close()
        return ends - self.committed()

    # -- what operators do -----------------------------------------------------------------------------------

    def configure(self, topic: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for done in self.admin.incremental_alter_configs([resource]).values():
            done.result()
        asked = ConfigResource(ResourceType.TOPIC, topic)
        eventually(lambda: self.admin.describe_configs([asked])[asked].result()[name].value == value, "configured")

    def compact_eagerly(self, topic: str) -> None:
        """Has the broker compact all but the newest records of a topic within a second instead of within days."""
        self.configure(topic, "segment.ms", "200")
        self.configure(topic, "min.cleanable.dirty.ratio", "0.001")
        broker = ConfigResource(
            ResourceType.BROKER,
            "1",
            incremental_configs=[
                ConfigEntry("log.cleaner.backoff.ms", "200", incremental_operation=AlterConfigOpType.SET)
            ],
        )
        for done in self.admin.incremental_alter_configs([broker]).values():
            done.result()

    def truncate(self, topic: str, offset: int) -> None:
        for done in self.admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            done.result()

    def recreate_changelog(self) -> None:
        self.admin.delete_topics([self.changelog])[self.changelog].result()
        eventually(lambda: self.changelog not in self.admin.list_topics(timeout=10).topics, "deleted")
        topic = NewTopic(self.changelog, 4, 1, config={"cleanup.policy": "compact"})
        self.admin.create_topics([topic])[self.changelog].result()
        self._visible(self.changelog)

    def forget_offsets(self) -> bool:
        """Deletes the group; false while it still has members."""
        try:
            self.admin.delete_consumer_groups([self.name])[self.name].result()
        except KafkaException:
            return False
        return True

    def partition_of(self, key: str) -> int:
        return murmur2(key.encode(), len(self._partitions(self.inputs[0])))

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        for running in self._running:
            running.stop()
        if self._reader:
            self._reader.close()


def await_frozen(worker: subprocess.Popen[bytes]) -> None:
    """Waits until a worker has stopped itself."""

    def is_frozen() -> bool:
        assert worker.poll() is None, f"it ended with {worker.returncode}"
        return Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    eventually(is_frozen, "frozen")
