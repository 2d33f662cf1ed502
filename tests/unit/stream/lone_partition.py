"""One partition without a broker: a processor, records for it, and what the runtime does after a commit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Message

from siyu.stream import Processor, StreamSettings
from siyu.stream.partition import Batch, Partition
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore


def processor(state_type: type[Any], step: Any, **more: Any) -> Processor[Any]:
    return Processor(
        name="lone",
        inputs=("in",),
        outputs=frozenset({"out"}),
        codec=msgspec.json,
        step=step,
        state_type=state_type,
        state_version=1,
        dead_letters="dlq.lone",
        **more,
    )


def partition(
    path: Path, lone: Processor[Any], store: StateStore | None = None, cache_bytes: int = 100_000, **settings: Any
) -> Partition[Any]:
    options = StreamSettings(bootstrap="", state_dir=path, cache_bytes=cache_bytes, **settings)
    return Partition(0, lone, options, StateCodec(lone), store or StateStore(path))


def message(offset: int, value: Any, key: bytes | None = b"k", stamp: int = 0) -> Message:
    """Bytes are the value as it is, everything else is encoded."""
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Message(topic="in", partition=0, offset=offset, key=key, value=data, timestamp=(1, stamp))


def process(one: Partition[Any], messages: Iterable[Message] = (), count: int = 5_000, **more: Any) -> Batch:
    """A batch of up to ``count`` records: those that wait, then these."""
    one.inbox.extend(messages)
    return one.process(count, **more)


def commit(one: Partition[Any], offset: int = 0, *, write: bool = True) -> dict[bytes, bytes | None]:
    """The changelog's records of the transaction, which land from ``offset`` on."""
    records = one.changelog_records()
    if records:
        records[-1]["callback"](None, Message(topic="c", partition=0, offset=offset + len(records) - 1))
    one.committed()
    one.write_back(now=write)
    return {record["key"]: record["value"] for record in records}
