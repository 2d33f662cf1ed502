"""Callbacks through HTTP into the real broker: what is genuine is there raw and typed, what is not leaves no trace."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from confluent_kafka import Message, Producer

from deploy.local.kafka import LocalKafka
from siyu.wecom.crypto import CallbackCrypto

pytestmark = pytest.mark.integration


async def test_several_corps_at_once(
    topics: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Callable[[str], Any]
) -> None:
    platforms = [new_platform() for _ in range(3)]
    ingest = await start_ingest(topics.bootstrap, *platforms)
    answers = await asyncio.gather(
        *(
            ingest.deliver(platform, platform.event(ExternalUserID=f"wm{number}"))
            for platform in platforms
            for number in range(20)
        )
    )
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    stored = read_topics(topics.bootstrap)
    for platform in platforms:
        raw, contact = stored.raw(platform), stored.contact(platform)
        keys = sorted(f"{platform.corp_id}|wm{number}".encode() for number in range(20))
        assert sorted(key for key, _, _ in raw) == sorted(key for key, _, _ in contact) == keys
        assert {event.event_id for _, _, event in raw} == {event.event_id for _, _, event in contact}
        assert len({event.event_id for _, _, event in raw}) == 20
        assert all(event.known for _, _, event in raw)
        assert sorted(event.personal for _, _, event in raw) == sorted(
            platform.event(ExternalUserID=f"wm{number}") for number in range(20)
        )
    text = (await ingest.ops("/metrics")).text
    assert 'siyu_ingest_callbacks_total{outcome="accepted",reason=""} 60.0' in text
    assert 'type="change_external_contact.add_external_contact"} 60.0' in text


async def test_repeats_keep_their_event_id(
    topics: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any
) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    unknown = platform.event("from_next_year")
    for message in platform.event(), platform.event(), unknown, unknown:
        assert (await ingest.deliver(platform, message)).status_code == 200
    stored = read_topics(topics.bootstrap)
    assert len(stored.raw(platform)) == 4
    assert len({event.event_id for _, _, event in stored.raw(platform)}) == 2
    assert len({event.event_id for _, _, event in stored.contact(platform)}) == 1


@pytest.mark.parametrize(
    "message",
    [
        b"<xml><Event><![CDATA[invented_tomorrow]]></Event><CreateTime>1700000000</CreateTime></xml>",
        b"<xml><Event>change_external_contact</Event><ChangeType>new</ChangeType><UserID>a</UserID></xml>",
        b"<xml><Event>change_external_contact</Event><ChangeType>add_external_contact</ChangeType></xml>",
        b"<xml><MsgType>text</MsgType><Content>hello</Content></xml>",
        b'{"event":"json_event"}',
        b"neither",
        b"",
        bytes(range(256)),
    ],
    ids=["event", "change", "fields", "message", "json", "text", "nothing", "bytes"],
)
async def test_what_no_type_knows_is_kept_raw(
    topics: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any, message: bytes
) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    answer = await ingest.deliver(platform, message)
    assert (answer.status_code, answer.content) == (200, b"")
    stored = read_topics(topics.bootstrap)
    ((key, _, event),) = stored.raw(platform)
    assert (key, event.known, event.personal) == (platform.corp_id.encode(), False, message)
    assert stored.contact(platform) == []


async def test_the_largest_body_that_is_taken_fits_the_topic(
    topics: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any
) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    # 786,100 bytes become 1 MiB of base64 less some 400 bytes of envelope. Random digits, so that lz4 cannot help.
    message = platform.event(Padding="".join(f"{hash((n, 7)) % 10**16:016}" for n in range(49_000)))
    request = platform.request(message)
    assert 1024 * 1024 - 8192 < len(request["content"]) <= 1024 * 1024
    assert (await ingest.post(platform, **request)).status_code == 200
    ((_, _, event),) = read_topics(topics.bootstrap).raw(platform)
    assert event.personal == message


async def test_url_verification(topics: LocalKafka, start_ingest: Any, new_platform: Any) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    request = platform.request(b"1616140317555161061+/=")
    sealed = request["content"].decode().partition("<Encrypt><![CDATA[")[2].partition("]]>")[0]
    url = f"{ingest.url}/callback/wecom/{platform.corp_id}?{urlencode(request['params'] | {'echostr': sealed})}"
    answer = await ingest.client.get(url)
    assert (answer.status_code, answer.content) == (200, b"1616140317555161061+/=")
    refused = await ingest.client.get(url.replace("nonce=", "nonce=x"))
    assert (refused.status_code, refused.text) == (403, "bad_signature")


async def test_nothing_that_is_refused_reaches_kafka(
    topics: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any
) -> None:
    platform, stranger = new_platform(), new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    good = platform.request(platform.event())
    content: bytes = good["content"]
    sealed = content.decode().partition("<Encrypt><![CDATA[")[2].partition("]]>")[0]

    def signed(encrypted: str) -> dict[str, Any]:
        """A body of that ciphertext under a right signature, as only a broken platform could send."""
        stamp, nonce = good["params"]["timestamp"], good["params"]["nonce"]
        signature = platform.crypto.signature(stamp, nonce, encrypted)
        return {
            "params": good["params"] | {"msg_signature": signature},
            "content": f"<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>".encode(),
        }

    entity = b'<!DOCTYPE x [<!ENTITY e "e">]><xml><Encrypt>&e;</Encrypt></xml>'
    other = CallbackCrypto(platform.entry["callback_token"], platform.entry["callback_aes_key"], "wwother")
    for_other = other.encrypt(platform.event(), timestamp=good["params"]["timestamp"], nonce="n")
    flipped = sealed[:-30] + ("A" if sealed[-30] != "A" else "B") + sealed[-29:]

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65_536

    cases: list[tuple[int, str, dict[str, Any]]] = [
        (400, "bad_query", {"content": content}),
        (400, "bad_envelope", good | {"content": b""}),
        (400, "bad_envelope", good | {"content": b"<xml><ToUserName>x</ToUserName></xml>"}),
        (400, "forbidden_markup", good | {"content": b"<!DOCTYPE xml>" + content}),
        (
            400,
            "forbidden_markup",
            good | {"content": entity},
        ),
        (403, "bad_signature", good | {"params": good["params"] | {"msg_signature": "0" * 40}}),
        (403, "bad_signature", good | {"params": good["params"] | {"nonce": "other"}}),
        (403, "bad_signature", good | {"content": content.replace(sealed.encode(), flipped.encode())}),
        (403, "bad_signature", stranger.request(stranger.event())),
        (400, "bad_base64", signed("!" + sealed[1:])),
        (400, "bad_ciphertext", signed(sealed[:-4])),
        (400, "bad_padding", signed(base64.b64encode(base64.b64decode(sealed)[:-32]).decode())),
        (
            403,
            "wrong_receive_id",
            {
                "params": for_other._asdict() | {"encrypt": ""},
                "content": f"<xml><Encrypt>{for_other.encrypt}</Encrypt></xml>".encode(),
            },
        ),
        (403, "stale_timestamp", platform.request(platform.event(), timestamp=1_400_000_000)),
        (403, "stale_timestamp", platform.request(platform.event(), timestamp=2_400_000_000)),
        (413, "body_too_large", good | {"content": content + b" " * 1024 * 1024}),
        (413, "body_too_large", good | {"content": endless()}),
    ]
    for status, reason, request in cases:
        answer = await ingest.post(platform, **request)
        assert (answer.status_code, answer.text) == (status, reason)
    assert (await ingest.post(stranger, **stranger.request(stranger.event()))).status_code == 404
    for method in "PUT", "DELETE", "PATCH":
        url = f"{ingest.url}/callback/wecom/{platform.corp_id}"
        assert (await ingest.client.request(method, url, **good)).status_code == 405

    stored = read_topics(topics.bootstrap)
    assert stored.raw(platform) == stored.contact(platform) == stored.raw(stranger) == []
    metrics = (await ingest.ops("/metrics")).text
    for reason in {reason for _, reason, _ in cases} | {"unknown_corp", "wrong_method"}:
        assert f'siyu_ingest_callbacks_total{{outcome="refused",reason="{reason}"}}' in metrics
    # The service is none the worse for it.
    assert (await ingest.post(platform, **good)).status_code == 200
    assert len(read_topics(topics.bootstrap).raw(platform)) == 1


async def test_a_window_of_zero_takes_old_callbacks(topics: LocalKafka, start_ingest: Any, new_platform: Any) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform, max_callback_age_seconds=0)
    assert (
        await ingest.post(platform, **platform.request(platform.event(), timestamp=1_400_000_000))
    ).status_code == 200


async def test_a_head_without_end_is_cut_off(topics: LocalKafka, start_ingest: Any, new_platform: Any) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    reader, writer = await asyncio.open_connection("127.0.0.1", ingest.service.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n")
    for number in range(20):
        writer.write(f"X-{number}: {'x' * 8000}\r\n".encode())
    answer = await reader.read(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert (await ingest.deliver(platform)).status_code == 200


async def test_one_connection_carries_many_deliveries(topics: LocalKafka, start_ingest: Any, new_platform: Any) -> None:
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    for _ in range(30):
        assert (await ingest.deliver(platform)).status_code == 200


async def test_a_key_stands_where_every_other_client_of_the_broker_would_put_it(
    topics: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any, topic_factory: Callable[..., str]
) -> None:
    """Or the events of one customer would reach two members of a processor."""
    platform = new_platform()
    ingest = await start_ingest(topics.bootstrap, platform)
    for number in range(20):
        assert (await ingest.deliver(platform, platform.event(ExternalUserID=f"wm{number}"))).status_code == 200
    stored = read_topics(topics.bootstrap)
    ours = {record.key: record.partition for record in stored.raw(platform)}
    assert len(set(ours.values())) > 1
    assert {record.key: record.partition for record in stored.contact(platform)} == ours

    theirs: dict[bytes, int] = {}

    def remember(error: object, message: Message) -> None:
        assert error is None
        key, partition = message.key(), message.partition()
        assert isinstance(key, bytes)
        assert partition is not None
        theirs[key] = partition

    producer = Producer({"bootstrap.servers": topics.bootstrap, "partitioner": "murmur2_random"})
    topic = topic_factory("partitioner", partitions=4)
    for key in ours:
        producer.produce(topic, key=key, value=b"", on_delivery=remember)
    producer.flush(20)
    assert theirs == ours
