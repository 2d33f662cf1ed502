"""How old a table is, and when its client is replaced: against a client that answers as the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from siyu.ops import tables
from siyu.ops.tables import TopicTables

TOPIC = "suppressions"
PARTITION = TopicPartition(TOPIC, 0)


@dataclass
class Record:
    offset: int
    value: bytes
    topic: str = TOPIC
    partition: int = 0
    key: bytes = b"k"


@dataclass
class Answer:
    """What one turn of the client brings. ``stable`` None: no answer from the broker."""

    records: tuple[Record, ...] = ()
    stable: int | None = None
    highwater: int | None = None
    frozen_s: float = 0.0
    """For so long the whole process stood still before it saw the answer."""
    error: Exception | None = None


class Client:
    """Stands for AIOKafkaConsumer."""

    def __init__(self, kafka: "Kafka") -> None:
        self._kafka = kafka
        self._client = self
        self._stamp: int | None = None
        self._stable: int | None = None
        self._highwater: int | None = None
        self._position = 0
        self.sought: int | None = None
        self.stopped = False

    async def start(self) -> None:
        if self._kafka.away:
            raise KafkaConnectionError

    async def stop(self) -> None:
        if self._kafka.away:
            raise asyncio.CancelledError  # what aiokafka says of requests it has cancelled itself
        self.stopped = True

    async def close(self) -> None:
        self.stopped = True

    async def fetch_all_metadata(self) -> "Client":
        if self._kafka.metadata is not None:
            await self._kafka.metadata.wait()
            raise KafkaConnectionError
        return self

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._kafka.partitions))

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._position = 0

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._position = self.sought = offset

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Record]]:
        self._kafka.turned.set()
        answer = await self._kafka.answers.get()
        self._kafka.now += 0.05 + answer.frozen_s
        if answer.error is not None:
            raise answer.error
        if answer.stable is not None:
            self._stamp = (self._stamp or 0) + 1
            self._stable = answer.stable
            self._highwater = answer.stable if answer.highwater is None else answer.highwater
        if answer.records:
            self._position = answer.records[-1].offset + 1
        return {PARTITION: list(answer.records)} if answer.records else {}

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        return self._stamp if partition == PARTITION else None

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        return self._stable

    def highwater(self, partition: TopicPartition) -> int | None:
        return self._highwater

    async def position(self, partition: TopicPartition) -> int:
        return self._position


class Kafka:
    """The cluster as the test wants it, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.away = False
        self.partitions = 1
        """The second one never answers."""
        self.metadata: asyncio.Event | None = None
        """Nobody answers what topics there are, until it is set: then the answer is no."""
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.turned = asyncio.Event()
        self.clients: list[Client] = []
        self.applied: list[bytes | None] = []
        self.tables = TopicTables("nowhere", "test", monotonic=lambda: self.now)
        self.tables.follow(TOPIC, self.apply)

    def client(self, **settings: Any) -> Client:
        assert settings["isolation_level"] == "read_committed"
        assert settings["group_id"] is None
        self.clients.append(Client(self))
        return self.clients[-1]

    def apply(self, key: bytes, value: bytes | None) -> None:
        if value == b"broken":
            raise ValueError("no")
        self.applied.append(value)

    async def answer(self, *answers: Answer) -> None:
        """Gives the answers and returns when all have been looked at."""
        for answer in answers:
            await self.turned.wait()
            self.turned.clear()
            self.answers.put_nowait(answer)
            await self.turned.wait()

    def age_s(self) -> float:
        age = self.tables.age_ms(TOPIC)
        assert age is not None
        return age / 1000


@pytest.fixture
async def kafka(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kafka]:
    kafka = Kafka()
    monkeypatch.setattr(tables, "AIOKafkaConsumer", kafka.client)
    monkeypatch.setattr(tables, "_RETRY_S", 0.0)
    stop = asyncio.Event()
    running = asyncio.create_task(kafka.tables.run(stop))
    yield kafka
    stop.set()
    kafka.answers.put_nowait(Answer())
    await running


async def test_ready_once_the_end_was_reached(kafka: Kafka) -> None:
    await kafka.answer(Answer((Record(0, b"a"),), stable=2))
    assert not kafka.tables.ready()
    assert kafka.tables.age_ms(TOPIC) is None
    assert kafka.tables.lag(TOPIC) == 1
    await kafka.answer(Answer((Record(1, b"b"),)))
    assert kafka.tables.ready()
    await kafka.tables.caught_up()
    assert kafka.applied == [b"a", b"b"]
    assert kafka.tables.lag(TOPIC) == 0


async def test_an_empty_topic_is_complete_when_the_broker_has_said_so(kafka: Kafka) -> None:
    await kafka.answer(Answer())
    assert not kafka.tables.ready()
    await kafka.answer(Answer(stable=0))
    assert kafka.tables.ready()


async def test_the_age_grows_while_nobody_answers_and_an_answer_ends_that(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=0))
    kafka.now += 7
    assert 7 <= kafka.age_s() < 8
    assert not kafka.tables.fresh(TOPIC, 5000)
    await kafka.answer(Answer(), Answer(stable=0), Answer(stable=0))
    assert kafka.tables.fresh(TOPIC, 5000)


async def test_a_process_that_was_frozen_is_old_when_it_wakes_though_an_answer_lies_there(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=0))
    await kafka.answer(Answer(stable=0, frozen_s=9))
    assert kafka.age_s() >= 9
    await kafka.answer(Answer(stable=0))
    assert kafka.age_s() < 1


async def test_behind_a_transaction_that_does_not_end_the_table_grows_old(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=5, highwater=5, records=(Record(4, b"a"),)))
    for _ in range(100):
        await kafka.answer(Answer(stable=5, highwater=6))
    assert kafka.age_s() >= 5
    assert kafka.tables.ready()
    await kafka.answer(Answer(stable=7, highwater=8, records=(Record(6, b"b"),)))
    assert kafka.age_s() < 1


async def test_transactions_one_after_the_other_do_not_make_the_table_old(kafka: Kafka) -> None:
    for offset in range(200):
        await kafka.answer(Answer(stable=offset, highwater=offset + 1, records=(Record(offset - 1, b"a"),)))
        assert kafka.age_s() < 1


async def test_records_that_are_there_and_not_yet_applied_keep_the_table_old(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=0))
    for offset in range(100):
        await kafka.answer(Answer(stable=1000, records=(Record(offset, b"a"),)))
    assert kafka.age_s() >= 4


async def test_a_silent_client_is_replaced_and_the_next_goes_on_where_it_stood(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=3, records=(Record(2, b"a"),)))
    kafka.now += 10
    await kafka.answer(Answer())
    assert [client.stopped for client in kafka.clients] == [True, False]
    assert kafka.clients[1].sought == 3
    assert kafka.tables.ready()
    assert not kafka.tables.fresh(TOPIC, 5000)
    await kafka.answer(Answer(stable=3))
    assert kafka.tables.fresh(TOPIC, 5000)
    assert kafka.tables.problem() is None


async def test_a_client_whose_one_partition_is_silent_is_replaced_though_another_brings_records(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=0))
    kafka.partitions = 2
    for offset in range(290):  # 0.05 s each; the partition is found after 5 s
        await kafka.answer(Answer(stable=1000, records=(Record(offset, b"a"),)))
    assert len(kafka.clients) == 1
    assert kafka.tables.age_ms(TOPIC) is None
    await kafka.answer(*[Answer(stable=1000)] * 20)
    assert len(kafka.clients) == 2
    assert kafka.clients[1].sought == 290


async def test_reading_goes_on_while_nobody_says_what_topics_there_are(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=0))
    kafka.metadata = asyncio.Event()
    for offset in range(250):
        await kafka.answer(Answer(stable=offset + 1, records=(Record(offset, b"a"),)))
        assert kafka.age_s() < 1
    kafka.metadata.set()
    await kafka.answer(*[Answer(stable=250)] * 150)
    assert kafka.tables.fresh(TOPIC, 1000)
    assert len(kafka.clients) == 1


async def test_partitions_that_were_added_are_looked_for(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=1, records=(Record(0, b"a"),)))
    assert kafka.tables.age_ms(TOPIC) is not None
    kafka.partitions = 2
    await kafka.answer(*[Answer(stable=1)] * 110)
    assert kafka.tables.ready()
    assert kafka.tables.age_ms(TOPIC) is None
    assert len(kafka.clients) == 1
    assert kafka.clients[0].sought == 1


@pytest.mark.parametrize("error", [KafkaConnectionError("quotes k"), OSError(), TimeoutError(), KeyError("quotes k")])
async def test_whatever_a_client_dies_of_there_is_another(kafka: Kafka, error: Exception) -> None:
    await kafka.answer(Answer(stable=1, records=(Record(0, b"a"),)))
    await kafka.answer(Answer(error=error), Answer(stable=2, records=(Record(1, b"b"),)))
    assert kafka.applied == [b"a", b"b"]
    assert kafka.tables.fresh(TOPIC, 1000)
    assert len(kafka.clients) == 2


async def test_a_client_that_fails_is_replaced_for_as_long_as_it_takes(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=0))
    await kafka.turned.wait()
    kafka.turned.clear()
    kafka.away = True
    kafka.answers.put_nowait(Answer(error=KafkaConnectionError()))
    while len(kafka.clients) < 5:  # noqa: ASYNC110 – nobody tells
        await asyncio.sleep(0)
    assert kafka.tables.problem() == "KafkaConnectionError"
    assert kafka.tables.ready()
    kafka.away = False
    await kafka.answer(Answer(stable=1, records=(Record(0, b"a"),)))
    assert kafka.applied == [b"a"]
    assert all(client.stopped for client in kafka.clients[:-1])


async def test_a_record_that_cannot_be_applied_is_counted_and_left_out(kafka: Kafka) -> None:
    await kafka.answer(Answer(stable=3, records=(Record(0, b"a"), Record(1, b"broken"), Record(2, b"c"))))
    assert kafka.applied == [b"a", b"c"]
    assert kafka.tables.applied(TOPIC) == 2
    assert kafka.tables.refusals(TOPIC) == 1
    assert kafka.tables.ready()


def test_a_topic_has_one_table() -> None:
    both = TopicTables("nowhere", "test")
    follow: Callable[[], None] = lambda: both.follow(TOPIC, lambda key, value: None)  # noqa: E731
    follow()
    with pytest.raises(ValueError, match="followed already"):
        follow()
