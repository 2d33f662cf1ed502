"""One key's state for a person who asked for it, while its owner runs: read only, and exact about where it was read.

The changelog is the truth and a store on this machine a cache of it (siyu/stream/README.md). So the newest state is
the store's, unless the changelog has the key again behind the store's position.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import murmur2
from prometheus_client import CollectorRegistry
from rocksdict import AccessType, Options, Rdict

from siyu.events.business_time import iso_utc
from siyu.ops.scan import Progress, ScanError, Scanner
from siyu.stream import Processor, StreamError
from siyu.stream.changelog import Topics, inspect_topics
from siyu.stream.state import StateCodec, version_of
from siyu.stream.store import POSITION, POSITION_FORMAT, TOPOLOGY

Source = Literal["newest", "store", "changelog"]
_OPEN_ATTEMPTS = 5


class StateReadError(RuntimeError):
    """The state could not be read: no broker, no store, or bytes this version cannot read."""


@dataclass(frozen=True)
class KeyState:
    """What was found under one key, and where. ``stored`` is None when there is no state."""

    partition: int | None
    """None when it cannot be known: Kafka was not asked, and no store has the key."""
    read_from: str
    """Path of a store, or the changelog's name."""
    stored: bytes | None
    store_position: int | None = None
    """The store holds what the changelog says before this offset."""
    changelog_offset: int | None = None
    """Where the changelog has the state (or its deletion)."""
    changelog_end: int | None = None
    """The changelog was read up to here; nothing newer of this key lies before it."""
    written_ms: int | None = None
    """Timestamp of the changelog's record."""


def processor_of(service: str) -> Processor[Any]:
    """The processor as its service builds it; it is not run, and what it would count goes nowhere."""
    built: Any = importlib.import_module(f"services.{service}.service")
    # The defaults: whatever the environment says about running it does not concern who only looks.
    processor: Processor[Any] = built.processor(built.Settings.model_construct(), CollectorRegistry())
    return processor


def find_state(
    processor: Processor[Any], key: str, *, bootstrap: str, state_dir: Path, source: Source, progress: Progress
) -> KeyState:
    """The state of one key.

    ``newest``: from the stores below ``state_dir`` and what the changelog has behind them; all of it from the
    changelog when there is no store. ``store``: only the store, Kafka is not asked. ``changelog``: no store is looked
    at. Raises StateReadError.
    """
    raw_key = key.encode()
    if source == "store":
        return _newest_store(processor, raw_key, state_dir)
    try:
        topics = inspect_topics(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}), processor)
        partition = murmur2(raw_key, topics.partitions)
        found = None
        if source == "newest":
            found = _store_of_partition(processor, raw_key, state_dir, partition, topics)
        with Scanner(bootstrap, progress) as scanner:
            return _from_changelog(scanner, processor.changelog, raw_key, partition, found)
    except KafkaException as error:
        raise StateReadError(
            f"Kafka at {bootstrap} does not answer: {error.args[0].str()}; --from store reads what this machine has"
        ) from None
    except (ScanError, StreamError) as error:
        raise StateReadError(str(error)) from None


def as_json(processor: Processor[Any], key: str, found: KeyState) -> bytes:
    """For the terminal or another program. Raises StateReadError when the bytes are of a version we cannot read."""
    assert found.stored is not None
    try:
        state, timers = StateCodec(processor).decode(found.stored)
    except StreamError as error:
        raise StateReadError(str(error)) from None
    shown = {
        "processor": processor.name,
        "key": key,
        "partition": found.partition,
        "read_from": found.read_from,
        "store_position": found.store_position,
        "changelog_offset": found.changelog_offset,
        "changelog_end": found.changelog_end,
        "written_at": None if found.written_ms is None else iso_utc(found.written_ms),
        "state_version": version_of(found.stored),
        "bytes": len(found.stored),
        "timers": {name: iso_utc(due_ms) for name, due_ms in sorted(timers.items(), key=lambda timer: timer[1])},
        "state": _readable(state),
    }
    return msgspec.json.format(msgspec.json.encode({k: v for k, v in shown.items() if v is not None}), indent=2)


def _readable(value: Any) -> Any:
    """With names where the stored form has positions only, and with what is encoded inside it decoded."""
    if isinstance(value, msgspec.Struct):
        return {name: _readable(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(name): _readable(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_readable(entry) for entry in value]
    if isinstance(value, bytes):
        try:
            return _readable(msgspec.msgpack.decode(value))
        except msgspec.DecodeError:
            return value
    return value


# Stores


@dataclass(frozen=True)
class _Store:
    """What one store says about a key, and up to where."""

    path: Path
    partition: int
    position: int
    changelog_id: str
    stored: bytes | None


def _newest_store(processor: Processor[Any], key: bytes, state_dir: Path) -> KeyState:
    """Without Kafka the key's partition is not known: it is the one whose store has the key."""
    stores = list(_stores(processor, key, state_dir, "p[0-9]*"))
    if not stores:
        raise StateReadError(f"no store of {processor.name} below {state_dir}; set SIYU_STATE_DIR or --state-dir")
    having = [store for store in stores if store.stored is not None]
    if not having:
        read = ", ".join(sorted(f"p{store.partition}" for store in stores))
        return KeyState(None, f"{state_dir / processor.name} ({read})", None)
    return _as_found(max(having, key=lambda store: store.position))


def _store_of_partition(
    processor: Processor[Any], key: bytes, state_dir: Path, partition: int, topics: Topics
) -> KeyState | None:
    """Of several instances on this machine the one that is furthest; none that belongs to another changelog."""
    ours = [
        store
        for store in _stores(processor, key, state_dir, f"p{partition}")
        if store.changelog_id == topics.changelog_id
    ]
    return _as_found(max(ours, key=lambda store: store.position)) if ours else None


def _as_found(store: _Store) -> KeyState:
    return KeyState(store.partition, str(store.path), store.stored, store_position=store.position)


def _stores(processor: Processor[Any], key: bytes, state_dir: Path, name: str) -> Iterator[_Store]:
    for path in sorted((state_dir / processor.name).glob(f"*/{name}")):
        database = _open(path)
        try:
            stored, position, topology = (database.get(k) for k in (key, POSITION, TOPOLOGY))
        finally:
            database.close()
        if topology is not None:  # else nobody has adopted it yet
            yield _Store(
                path,
                int(path.name.removeprefix("p")),
                POSITION_FORMAT.unpack(position)[0] if position else 0,
                json.loads(topology)["changelog_id"],
                stored,
            )


def _open(path: Path) -> Rdict:
    """As it is now. Opening takes no lock and writes nothing, but the owner may remove a file meanwhile: then again."""
    reason = ""
    for _ in range(_OPEN_ATTEMPTS):
        try:
            return Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
        except Exception as error:  # rocksdict raises nothing narrower
            reason = str(error)
    raise StateReadError(f"state store {path} cannot be read: {reason}; --from changelog does without it")


# The changelog


def _from_changelog(scanner: Scanner, changelog: str, key: bytes, partition: int, store: KeyState | None) -> KeyState:
    """The newest record of the key behind the store's position, else the store's state."""
    place = changelog, partition
    start, end = scanner.bounds([place])[place]
    position = store.store_position if store is not None else None
    if store is None or position is None or not start <= position <= end:
        # A store that is not of this log is one its owner would rebuild.
        found, position = KeyState(partition, changelog, None, changelog_end=end), start
    else:
        found = replace(store, changelog_end=end)
    for message in scanner.read_from(f"{changelog} partition {partition}", place, position):
        if message.key() == key:
            found = KeyState(
                partition,
                changelog,
                message.value(),
                changelog_offset=message.offset(),
                changelog_end=end,
                written_ms=message.timestamp()[1],
            )
    return found
