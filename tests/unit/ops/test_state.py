"""A state is found in the stores of this machine while their owner writes, and shown so that a person can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from siyu.cli import PROCESSORS
from siyu.ops.state import KeyState, StateReadError, as_json, find_state, processor_of
from siyu.stream import Processor
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore, topology


class Visit(msgspec.Struct, array_like=True):
    at_ms: int
    shop: str


class Guest(msgspec.Struct, array_like=True):
    visits: tuple[Visit, ...]
    packed: bytes


def guests(**changes: object) -> Processor[Guest]:
    fields: dict[str, object] = {
        "name": "guests",
        "inputs": ("visits",),
        "outputs": frozenset[str](),
        "codec": msgspec.json,
        "step": lambda key, record, state, ctx: state,
        "state_type": Guest,
        "state_version": 2,
        "dead_letters": "dlq.guests",
    }
    return Processor(**{**fields, **changes})  # type: ignore[arg-type]


GUEST = Guest((Visit(1_767_225_600_000, "bund"),), msgspec.msgpack.encode([1, {"a": 2}]))
STORED = StateCodec(guests()).encode(GUEST, {"remind": 1_767_225_600_000})


def open_store(folder: Path, instance: str, partition: int) -> StateStore:
    store = StateStore(folder / "guests" / instance / f"p{partition}")
    store.adopt(topology(guests(), "id-1"), guests())
    return store


def find(folder: Path, key: str = "ww1|li") -> KeyState:
    """Without Kafka: nothing answers there."""
    return find_state(
        guests(), key, bootstrap="127.0.0.1:1", state_dir=folder, source="store", progress=lambda *_: None
    )


def test_a_state_is_shown_with_names_and_with_what_is_packed_in_it() -> None:
    shown = json.loads(as_json(guests(), "ww1|li", KeyState(3, "guests.changelog", STORED, changelog_offset=7)))
    assert shown == {
        "processor": "guests",
        "key": "ww1|li",
        "partition": 3,
        "read_from": "guests.changelog",
        "changelog_offset": 7,
        "state_version": 2,
        "bytes": len(STORED),
        "timers": {"remind": "2026-01-01T00:00:00.000Z"},
        "state": {"visits": [{"at_ms": 1_767_225_600_000, "shop": "bund"}], "packed": [1, {"a": 2}]},
    }


def test_a_state_of_another_version_is_refused_without_its_content() -> None:
    with pytest.raises(StateReadError, match="upgrade") as refused:
        as_json(guests(state_version=3), "ww1|li", KeyState(3, "guests.changelog", STORED))
    assert "bund" not in str(refused.value)


def test_a_store_is_read_while_its_owner_has_it_open(tmp_path: Path) -> None:
    owner = open_store(tmp_path, "0", 1)
    try:
        assert find(tmp_path).stored is None
        files = sorted(path.name for path in owner.path.iterdir())
        owner.write([(b"ww1|li", STORED)], 12, 1_000)
        found = find(tmp_path)
        assert (found.stored, found.partition, found.store_position) == (STORED, 1, 12)
        assert found.read_from == str(owner.path)
        assert find(tmp_path, "ww1|else").stored is None
        owner.write([(b"ww1|li", None)], 13, 1_000)
        assert find(tmp_path).stored is None
        assert sorted(path.name for path in owner.path.iterdir()) == files
    finally:
        owner.close()


def test_of_several_instances_the_one_that_is_furthest_counts(tmp_path: Path) -> None:
    for instance, position, shop in (("0", 90, "bund"), ("0-1", 100, "xintiandi"), ("0-0", 95, "pudong")):
        store = open_store(tmp_path, instance, 2)
        guest = Guest((Visit(1, shop),), b"")
        store.write([(b"ww1|li", StateCodec(guests()).encode(guest))], position, 1_000)
        store.close()
    found = find(tmp_path)
    assert found.stored is not None
    assert StateCodec(guests()).decode(found.stored)[0].visits[0].shop == "xintiandi"


def test_no_store_is_another_answer_than_no_state(tmp_path: Path) -> None:
    with pytest.raises(StateReadError, match="no store of guests"):
        find(tmp_path)


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path, "0", 0)
    store.close()
    os.truncate(store.path / "CURRENT", 0)
    with pytest.raises(StateReadError, match="p0 cannot be read"):
        find(tmp_path)


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_processor_is_the_one_its_service_runs(name: str) -> None:
    assert processor_of(name).name == name
