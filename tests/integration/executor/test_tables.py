"""Tables that every process keeps whole, on the real broker: complete, committed only, and honest about their age."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.ops import tables
from siyu.ops.tables import NotWritten, TopicTables, append

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


class Follower:
    """A process's tables: what each topic's records say by key."""

    def __init__(self, bootstrap: str, *topics: str) -> None:
        self.held: dict[str, dict[bytes, list[bytes | None]]] = {topic: {} for topic in topics}
        self.refused: list[str] = []
        self.tables = TopicTables(bootstrap, "test", refused=self.refused.append)
        for topic in topics:
            self.tables.follow(topic, self._table(topic))

    def _table(self, topic: str) -> Callable[[bytes, bytes | None], None]:
        def apply(key: bytes, value: bytes | None) -> None:
            if value == b"broken":
                raise ValueError("a value that must never be logged")
            self.held[topic].setdefault(key, []).append(value)

        return apply


@asynccontextmanager
async def following(bootstrap: str, *topics: str, caught_up: bool = True) -> AsyncIterator[Follower]:
    follower = Follower(bootstrap, *topics)
    stop = asyncio.Event()
    running = asyncio.create_task(follower.tables.run(stop))
    try:
        if caught_up:
            await follower.tables.caught_up()
        yield follower
    finally:
        stop.set()
        await running


async def until(what: Callable[[], bool]) -> None:
    while not what():  # noqa: ASYNC110 – what is awaited tells nobody
        await asyncio.sleep(0.02)


def pairs(*numbers: int) -> list[tuple[bytes, bytes | None]]:
    return [(b"k%d" % number, b"v%d" % number) for number in numbers]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of our own: these tests take it away."""
    broker = LocalKafka(tmp_path_factory.mktemp("own-kafka"), free_ports(1)[0])
    broker.start()
    try:
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()


def create(bootstrap: str, name: str, partitions: int = 4) -> str:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)
    return name


async def test_a_table_knows_what_was_written_before_it_began_and_whatever_is_written_then(
    kafka: LocalKafka, topic_factory: Callable[..., str]
) -> None:
    first, second = topic_factory("first", partitions=4), topic_factory("second", partitions=1)
    assert await append(kafka.bootstrap, first, pairs(*range(3000))) == 3000
    async with following(kafka.bootstrap, first, second) as follower:
        assert follower.held[first] == {key: [value] for key, value in pairs(*range(3000))}
        assert follower.held[second] == {}
        assert follower.tables.ready()
        assert follower.tables.lag(first) == 0
        assert follower.tables.problem() is None
        await append(kafka.bootstrap, second, [(b"k", b"1"), (b"k", b"2"), (b"k", None)])
        await until(lambda: len(follower.held[second].get(b"k", ())) == 3)
        assert follower.held[second][b"k"] == [b"1", b"2", None]
        await until(lambda: follower.tables.fresh(first, 5000) and follower.tables.fresh(second, 5000))
        assert follower.tables.applied(first) == 3000


async def test_nothing_is_known_before_the_end_was_seen(kafka: LocalKafka, topic_factory: Callable[..., str]) -> None:
    topic = topic_factory()
    follower = Follower(kafka.bootstrap, topic)
    assert not follower.tables.ready()
    assert follower.tables.age_ms(topic) is None
    assert not follower.tables.fresh(topic, 1 << 40)


async def test_what_was_not_committed_is_never_shown_and_an_open_transaction_makes_the_table_old(
    kafka: LocalKafka, topic_factory: Callable[..., str], unique_name: Callable[[str], str]
) -> None:
    topic = topic_factory(partitions=1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=unique_name("writer"))
    await producer.start()
    try:
        async with following(kafka.bootstrap, topic) as follower:
            async with producer.transaction():
                await producer.send_and_wait(topic, key=b"k", value=b"committed")
            await until(lambda: follower.held[topic] == {b"k": [b"committed"]})

            await producer.begin_transaction()
            await producer.send_and_wait(topic, key=b"k", value=b"aborted")
            await until(lambda: not follower.tables.fresh(topic, 2000))
            assert follower.tables.ready()
            assert follower.held[topic] == {b"k": [b"committed"]}
            await producer.abort_transaction()
            await until(lambda: follower.tables.fresh(topic, 1000))

            await append(kafka.bootstrap, topic, [(b"k", b"next")])
            await until(lambda: len(follower.held[topic][b"k"]) == 2)
            assert follower.held[topic] == {b"k": [b"committed", b"next"]}
            assert follower.tables.lag(topic) == 0
    finally:
        await producer.stop()


async def test_a_topic_that_ends_with_an_aborted_transaction_is_complete(
    kafka: LocalKafka, topic_factory: Callable[..., str], unique_name: Callable[[str], str]
) -> None:
    topic = topic_factory(partitions=1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=unique_name("writer"))
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(topic, key=b"k", value=b"aborted")
    await producer.abort_transaction()
    await producer.stop()
    async with following(kafka.bootstrap, topic) as follower:
        assert follower.held[topic] == {}
        assert follower.tables.lag(topic) == 0


async def test_a_record_that_cannot_be_applied_is_counted_and_holds_nothing_up(
    kafka: LocalKafka, topic_factory: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = topic_factory(partitions=1)
    await append(kafka.bootstrap, topic, [(b"a", b"1"), (b"b", b"broken"), (b"c", b"3")])
    async with following(kafka.bootstrap, topic) as follower:
        assert follower.held[topic] == {b"a": [b"1"], b"c": [b"3"]}
        assert follower.tables.refusals(topic) == 1
        assert follower.refused == [topic]
        await until(lambda: follower.tables.fresh(topic, 5000))
    logged = capsys.readouterr().out
    assert "table_record_refused" in logged
    assert "must never be logged" not in logged


async def test_partitions_that_are_added_are_read_and_nothing_is_read_twice(
    kafka: LocalKafka, topic_factory: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_METADATA_EVERY_S", 0.2)
    topic = topic_factory(partitions=1)
    await append(kafka.bootstrap, topic, pairs(*range(50)))
    async with following(kafka.bootstrap, topic) as follower:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        admin.create_partitions([NewPartitions(topic, 6)])[topic].result(30)
        await append(kafka.bootstrap, topic, pairs(*range(50, 150)))
        await until(lambda: len(follower.held[topic]) == 150)
        assert follower.held[topic] == {key: [value] for key, value in pairs(*range(150))}
        await until(lambda: follower.tables.fresh(topic, 2000))


async def test_a_topic_that_is_not_there_yet_keeps_the_tables_from_being_ready(
    kafka: LocalKafka,
    topic_factory: Callable[..., str],
    unique_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "_METADATA_EVERY_S", 0.2)
    there, late = topic_factory("there"), unique_name("late")
    await append(kafka.bootstrap, there, pairs(1))
    async with following(kafka.bootstrap, there, late, caught_up=False) as follower:
        await until(lambda: follower.tables.fresh(there, 5000))
        assert follower.held[there] == {b"k1": [b"v1"]}
        assert not follower.tables.ready()
        assert follower.tables.problem() == f"no topic {late}"
        create(kafka.bootstrap, late)
        await follower.tables.caught_up()
        await append(kafka.bootstrap, late, pairs(2))
        await until(lambda: follower.held[late] == {b"k2": [b"v2"]})
        assert follower.tables.problem() is None


async def _killed(broker: LocalKafka) -> Callable[[], Awaitable[None]]:
    await asyncio.to_thread(broker.kill)

    async def back() -> None:
        broker.start()
        await asyncio.to_thread(broker.wait_ready)

    return back


async def _frozen(broker: LocalKafka) -> Callable[[], Awaitable[None]]:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)

    async def back() -> None:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGCONT)

    return back


@pytest.mark.parametrize("outage", [_killed, _frozen])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_table_keeps_what_it_knows_while_the_broker_is_away_says_so_and_goes_on_after(
    broker: LocalKafka,
    unique_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    outage: Callable[[LocalKafka], Awaitable[Callable[[], Awaitable[None]]]],
    replaced: bool,
) -> None:
    if replaced:  # by a new client while the broker is still away
        monkeypatch.setattr(tables, "_SILENT_S", 1.0)
        monkeypatch.setattr(tables, "_CLOSE_S", 0.5)
    topic = create(broker.bootstrap, unique_name("outage"))
    await append(broker.bootstrap, topic, pairs(*range(100)))
    async with following(broker.bootstrap, topic) as follower:
        back = await outage(broker)
        try:
            await until(lambda: not follower.tables.fresh(topic, 2000))
            if replaced:
                await until(lambda: follower.tables.problem() is not None)
            assert follower.tables.ready()
            assert len(follower.held[topic]) == 100
        finally:
            await back()
        await append(broker.bootstrap, topic, pairs(*range(100, 200)))
        await until(lambda: len(follower.held[topic]) == 200)
        await until(lambda: follower.tables.fresh(topic, 2000))
        assert follower.held[topic] == {key: [value] for key, value in pairs(*range(200))}
        assert follower.tables.problem() is None


async def test_tables_that_begin_before_the_broker_wait_for_it(
    tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    late = LocalKafka(tmp_path / "late", free_ports(1)[0])
    topic = unique_name("late")
    async with following(late.bootstrap, topic, caught_up=False) as follower:
        await until(lambda: follower.tables.problem() not in (None, "not connected yet"))
        assert not follower.tables.ready()
        late.start()
        try:
            await asyncio.to_thread(late.wait_ready)
            create(late.bootstrap, topic)
            await append(late.bootstrap, topic, pairs(1))
            await until(lambda: follower.held[topic] == {b"k1": [b"v1"]})
            await follower.tables.caught_up()
        finally:
            late.stop()


async def test_writing_to_nobody_is_told_with_what_was_acknowledged() -> None:
    (port,) = free_ports(1)
    with pytest.raises(NotWritten, match="0 of 3 records acknowledged") as caught:
        await append(f"127.0.0.1:{port}", "t", pairs(1, 2, 3), total=3, timeout_seconds=1.0)
    assert caught.value.written == 0


async def test_writing_to_a_broker_that_freezes_ends_with_an_error(
    broker: LocalKafka, unique_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_CLOSE_S", 0.5)
    topic = create(broker.bootstrap, unique_name("frozen"))

    def acknowledged(written: int) -> None:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)

    try:
        with pytest.raises(NotWritten) as caught:
            await append(broker.bootstrap, topic, pairs(*range(2500)), progress=acknowledged, timeout_seconds=2.0)
        assert caught.value.written == 1000
    finally:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGCONT)
