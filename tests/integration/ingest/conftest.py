"""A running ingest for tests: corps nobody else has, a sender that seals like the platform, a reader of the topics."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import yaml
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.kafka import LocalKafka
from services.ingest.kafka import CONTACT_TOPIC, RAW_TOPIC
from services.ingest.service import IngestService
from services.ingest.settings import Settings
from siyu.events import codec, schemas_dir
from siyu.ops.topics import Cluster, load_topics
from siyu.wecom.crypto import CallbackCrypto

CREATED = 1_700_000_000
AES_KEYS = ("jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C", "4Ma3YBrSBbX2aez8MJpXGBne5LSDwgGqHbhM9WPYIws")


class FakePlatform:
    """Seals and posts callbacks of one corp."""

    def __init__(self, corp_id: str, token: str, aes_key: str) -> None:
        self.corp_id = corp_id
        self.crypto = CallbackCrypto(token, aes_key, corp_id)
        self.entry = {
            "corp_id": corp_id,
            "agent_id": "1000002",
            "secret": "unused",
            "callback_token": token,
            "callback_aes_key": aes_key,
        }

    def event(self, change_type: str = "add_external_contact", **fields: str) -> bytes:
        values = {
            "ToUserName": self.corp_id,
            "FromUserName": "sys",
            "CreateTime": str(CREATED),
            "MsgType": "event",
            "Event": "change_external_contact",
            "ChangeType": change_type,
            "UserID": "zhangsan",
            "ExternalUserID": "wm1",
        } | fields
        body = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in values.items())
        return f"<xml>{body}</xml>".encode()

    def request(self, message: bytes, *, timestamp: int | None = None) -> dict[str, Any]:
        """Keyword arguments of a POST that delivers the message."""
        stamp = str(int(time.time()) if timestamp is None else timestamp)
        sealed = self.crypto.encrypt(message, timestamp=stamp, nonce=uuid.uuid4().hex[:10])
        return {
            "params": {"msg_signature": sealed.msg_signature, "timestamp": stamp, "nonce": sealed.nonce},
            "content": (
                f"<xml><ToUserName><![CDATA[{self.corp_id}]]></ToUserName><AgentID><![CDATA[1000002]]></AgentID>"
                f"<Encrypt><![CDATA[{sealed.encrypt}]]></Encrypt></xml>"
            ).encode(),
        }


class Ingest:
    """A running service and a client that speaks to it."""

    def __init__(self, service: IngestService, client: httpx2.AsyncClient) -> None:
        self.service = service
        self.client = client
        self.url = f"http://127.0.0.1:{service.port}"
        self.ops_url = f"http://127.0.0.1:{service.metrics_port}"

    async def deliver(self, platform: FakePlatform, message: bytes | None = None) -> httpx2.Response:
        return await self.post(platform, **platform.request(platform.event() if message is None else message))

    async def post(self, platform: FakePlatform, **request: Any) -> httpx2.Response:
        return await self.client.post(f"{self.url}/callback/wecom/{platform.corp_id}", **request)

    async def ops(self, path: str) -> httpx2.Response:
        return await self.client.get(self.ops_url + path)

    async def becomes(self, ready: int) -> None:
        """Waits until /readyz answers 200 or 503."""

        async def there() -> bool:
            return (await self.ops("/readyz")).status_code == ready

        await _until(there)

    async def accepts(self, platform: FakePlatform, message: bytes | None = None) -> None:
        """Delivers again and again, as the platform does, until the answer is 200."""

        async def accepted() -> bool:
            return (await self.deliver(platform, message)).status_code == 200

        await _until(accepted)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110  what another process does, nobody tells us
        await asyncio.sleep(0.05)


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """`await until(condition)`: the test's own time limit ends it when the condition never holds."""
    return _until


StartIngest = Callable[..., Awaitable[Ingest]]
NewPlatform = Callable[[], FakePlatform]


@pytest.fixture
def new_platform() -> NewPlatform:
    """A corp that no other test has; every second one has other keys."""
    count = 0

    def create() -> FakePlatform:
        nonlocal count
        count += 1
        return FakePlatform(f"ww{uuid.uuid4().hex[:16]}", f"token{count}", AES_KEYS[count % 2])

    return create


@pytest.fixture
def corps_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the corps file of these platforms."""

    def write(*platforms: FakePlatform) -> Path:
        path = tmp_path / f"corps-{uuid.uuid4().hex[:8]}.yaml"
        path.write_text(yaml.safe_dump({"corps": [platform.entry for platform in platforms]}))
        return path

    return write


@pytest.fixture
async def start_ingest(corps_file: Callable[..., Path]) -> AsyncIterator[StartIngest]:
    """`await start_ingest(bootstrap, platform, …, setting=value)`: a service in this process, stopped afterwards."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(bootstrap: str, *platforms: FakePlatform, ready: bool = True, **settings: Any) -> Ingest:
            service = IngestService(
                Settings(
                    kafka_bootstrap=bootstrap,
                    corps=corps_file(*platforms),
                    port=0,
                    metrics_port=0,
                    log_events=False,
                    **settings,
                )
            )
            stop = asyncio.Event()
            task = asyncio.create_task(service.run(stop))

            async def finish() -> None:
                stop.set()
                await task

            stack.push_async_callback(finish)
            client = await stack.enter_async_context(httpx2.AsyncClient(timeout=30, trust_env=False))
            ingest = Ingest(service, client)
            if ready:
                await ingest.becomes(200)
            return ingest

        yield start


def _create_topics(bootstrap: str) -> None:
    """Creates what schemas/topics.yaml declares for ingest, if it is not there."""
    cluster = Cluster(bootstrap)
    wanted = {
        name: topic
        for name, topic in load_topics(schemas_dir() / "topics.yaml", "local").items()
        if name in (RAW_TOPIC, CONTACT_TOPIC)
    }
    cluster.apply(cluster.difference(wanted), wanted)


@pytest.fixture(scope="session")
def topics(kafka: LocalKafka) -> LocalKafka:
    """The session's broker with ingest's topics."""
    _create_topics(kafka.bootstrap)
    return kafka


@pytest.fixture
def create_topics() -> Callable[[str], None]:
    """Creates ingest's topics on a broker of a test's own."""
    return _create_topics


class Stored(NamedTuple):
    """A record of one corp."""

    key: bytes
    partition: int
    event: Any


class Topics:
    """What stands in ingest's topics."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def raw(self, platform: FakePlatform) -> list[Stored]:
        return self._read(RAW_TOPIC, platform.corp_id)

    def contact(self, platform: FakePlatform) -> list[Stored]:
        return self._read(CONTACT_TOPIC, platform.corp_id)

    def _read(self, topic: str, corp_id: str) -> list[Stored]:
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        partitions = list(admin.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": f"reader-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
            }
        )
        try:
            left = {
                partition: end
                for partition in partitions
                if (end := consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])
            }
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
            records = []
            while left:
                message = consumer.poll(10)
                assert message is not None, f"{topic} ended before its high watermark"
                assert message.error() is None
                key, partition, offset = message.key(), message.partition(), message.offset()
                assert isinstance(key, bytes)
                assert partition is not None
                assert offset is not None
                # Other tests write to these topics too, and not only what can be decoded.
                if key.decode().partition("|")[0] == corp_id:
                    records.append(Stored(key, partition, codec().decode(message.value())))
                if offset + 1 >= left[partition]:
                    del left[partition]
                    consumer.incremental_unassign([TopicPartition(topic, partition)])
            return records
        finally:
            consumer.close()


@pytest.fixture
def read_topics() -> Callable[[str], Topics]:
    """`read_topics(bootstrap)`: everything that stands there now."""
    return Topics
