"""A service as a process of its own, and the topics as its neighbours see them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from siyu.events import Action, ActionOutcome, codec
from siyu.wecom.endpoints import quota_scope


class Worker:
    """One service process; it may be killed and started again as often as the test likes."""

    def __init__(self, module: str, log_file: Path, environment: dict[str, str]) -> None:
        self._module = module
        self._log_file = log_file
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("SIYU_")} | environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, 60)

    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    async def until_log(self, event: str, count: int = 1) -> None:
        await eventually(lambda: len(self.lines(event)) >= count, self.log)


class Topics:
    """Produces actions and reads what is committed."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer = Producer(
            # One test takes the broker away: its lines about that say nothing.
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "log_level": 0,
                # What compresses well passes a broker that counts compressed bytes.
                "message.max.bytes": 64 << 20,
                "compression.type": "lz4",
            }
        )

    def send(self, *actions: Action) -> None:
        for action in actions:
            self._producer.produce(
                f"actions.{action.lane}", codec().encode(action), quota_scope(action.corp_id, action.endpoint)
            )
        assert self._producer.flush(30) == 0

    def send_raw(self, topic: str, key: bytes, value: bytes | None) -> None:
        self._producer.produce(topic, value, key)
        assert self._producer.flush(30) == 0

    def send_event(self, topic: str, key: str, event: Any) -> None:
        self.send_raw(topic, key.encode(), codec().encode(event))

    def read(self, topic: str) -> list[Message]:
        """Everything committed in the topic, from its beginning to its end as it is now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": f"test-{uuid.uuid4().hex}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        try:
            partitions = consumer.list_topics(topic, 30).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            messages, open_ends, deadline = [], set(partitions), time.monotonic() + 30
            while open_ends:
                assert time.monotonic() < deadline, "reading a topic took too long"
                message = consumer.poll(1.0)
                if message is None:
                    continue
                if message.error():
                    open_ends.discard(message.partition())
                else:
                    messages.append(message)
            return messages
        finally:
            consumer.close()

    def outcomes(self, prefix: str) -> list[ActionOutcome]:
        """Committed outcomes of the actions whose id begins so."""
        found = [codec().decode_as(ActionOutcome, message.value()) for message in self.read("action.outcomes")]
        return [outcome for outcome in found if outcome.action_id.startswith(prefix)]

    async def until_outcomes(self, prefix: str, count: int, explain: Callable[[], str]) -> list[ActionOutcome]:
        """Waits until ``count`` different actions have an outcome."""
        deadline = time.monotonic() + 90
        while True:
            found = await asyncio.to_thread(self.outcomes, prefix)
            if len({outcome.action_id for outcome in found}) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} outcomes\n{explain()[-4000:]}"
            await asyncio.sleep(0.3)


async def eventually(condition: Callable[[], bool], explain: Callable[[], str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()[-4000:]
        await asyncio.sleep(0.05)
