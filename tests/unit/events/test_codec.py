"""Every typed event survives its schema; bytes that are not one are refused without being quoted."""

from __future__ import annotations

import json
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.events import Codec, CodecError, Event, codec, schemas_dir, types
from siyu.events.codec import schema_name
from siyu.events.compatibility import incompatibilities, unreadable

EVENT_TYPES = [
    cls for cls in vars(types).values() if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event
]
LONG = st.integers(-(2**63), 2**63 - 1)


def values_of(hint: object) -> st.SearchStrategy[object]:
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return st.lists(values_of(typing.get_args(hint)[0]), max_size=3)
    if typing.get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=5), values_of(typing.get_args(hint)[1]), max_size=3)
    simple: dict[object, st.SearchStrategy[object]] = {
        str: st.text(max_size=20),
        int: LONG,
        bool: st.booleans(),
        bytes: st.binary(max_size=50),
    }
    return simple[hint]


def events_of(cls: type[Event]) -> st.SearchStrategy[Event]:
    return st.builds(cls, **{name: values_of(hint) for name, hint in typing.get_type_hints(cls).items()})


ANY_EVENT = st.one_of([events_of(cls) for cls in EVENT_TYPES])


@given(ANY_EVENT)
def test_what_is_encoded_decodes_to_the_same_event(event: Event) -> None:
    assert codec().decode(codec().encode(event)) == event


@given(ANY_EVENT, st.data())
def test_a_cut_or_lengthened_value_is_refused(event: Event, data: st.DataObject) -> None:
    value = codec().encode(event)
    cut = data.draw(st.integers(0, len(value) - 1))
    with pytest.raises(CodecError):
        codec().decode(value[:cut])
    with pytest.raises(CodecError):
        codec().decode(value + b"\x00")


@given(st.binary(max_size=200))
def test_random_bytes_are_an_event_or_a_codec_error_and_nothing_else(value: bytes) -> None:
    for prefix in (b"", b"\x00\x00\x00\x00\x02"):
        message = ""
        try:
            codec().decode(prefix + value)
        except CodecError as error:
            message = str(error)
        assert len(value) < 4 or value not in message.encode()


def test_the_wire_format_is_confluents_with_the_id_of_ids_json() -> None:
    ids = json.loads((schemas_dir() / "ids.json").read_text())
    delta = types.StaffDelta(
        corp_id="c",
        staff_id="s",
        day="2026-01-01",
        counters={"adds": 1},
        event_time_ms=1,
        received_at_ms=2,
        caused_by="e",
    )
    value = codec().encode(delta)
    assert value[0] == 0
    assert int.from_bytes(value[1:5], "big") == ids["staff_delta.v1"]


def test_a_value_that_does_not_fit_is_refused_without_being_quoted() -> None:
    delta = types.StaffDelta(
        corp_id="c",
        staff_id="13800000001",
        day="d",
        counters={"adds": "13800000001"},
        event_time_ms=1,
        received_at_ms=2,
        caused_by="e",  # type: ignore[dict-item]
    )
    with pytest.raises(CodecError) as caught:
        codec().encode(delta)
    assert "13800000001" not in str(caught.value)


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_the_type_mirrors_its_newest_schema_field_for_field(cls: type[Event]) -> None:
    ids = json.loads((schemas_dir() / "ids.json").read_text())
    newest = max(
        (name for name in ids if name.rpartition(".v")[0] == schema_name(cls)), key=lambda n: int(n.rpartition(".v")[2])
    )
    schema = json.loads((schemas_dir() / "avro" / f"{newest}.avsc").read_text())
    assert [f["name"] for f in schema["fields"]] == [f.name for f in msgspec.structs.fields(cls)]


def test_the_shipped_schemas_read_each_other() -> None:
    assert incompatibilities(schemas_dir()) == []


def _record(*fields: dict[str, object]) -> dict[str, object]:
    return {"type": "record", "name": "R", "fields": list(fields)}


@pytest.mark.parametrize(
    ("writer", "reader", "readable"),
    [
        (_record({"name": "a", "type": "string"}), _record(), True),
        (_record(), _record({"name": "a", "type": "string"}), False),
        (_record(), _record({"name": "a", "type": "string", "default": ""}), True),
        (_record({"name": "a", "type": "int"}), _record({"name": "a", "type": "long"}), True),
        (_record({"name": "a", "type": "long"}), _record({"name": "a", "type": "int"}), False),
        ({"type": "array", "items": "string"}, {"type": "array", "items": "long"}, False),
        ("string", ["null", "string"], True),
        (["null", "string"], "string", False),
        ({"type": "map", "values": "long"}, {"type": "map", "values": "long"}, True),
    ],
)
def test_which_changes_a_reader_survives(writer: object, reader: object, readable: bool) -> None:
    assert (unreadable(writer, reader) == []) is readable


def test_an_incompatible_new_version_is_found(tmp_path) -> None:
    (tmp_path / "avro").mkdir()
    (tmp_path / "ids.json").write_text('{"r.v1": 1, "r.v2": 2, "gone.v1": 3}')
    (tmp_path / "avro" / "r.v1.avsc").write_text(json.dumps(_record()))
    (tmp_path / "avro" / "r.v2.avsc").write_text(json.dumps(_record({"name": "a", "type": "string"})))
    (tmp_path / "avro" / "stray.v1.avsc").write_text(json.dumps(_record()))
    found = incompatibilities(tmp_path)
    assert found == [
        "gone.v1: has an id but no file",
        "stray.v1: has a file but no id",
        "r.v2 cannot read r.v1: a is missing and has no default",
    ]


def test_a_newer_schema_still_reads_what_an_older_one_wrote(tmp_path) -> None:
    """Copies our schemas, gives StaffDelta's schema an older version without one field, and reads such a value."""
    (tmp_path / "avro").mkdir()
    ids = json.loads((schemas_dir() / "ids.json").read_text())
    for name in ids:
        (tmp_path / "avro" / f"{name}.avsc").write_text((schemas_dir() / "avro" / f"{name}.avsc").read_text())
    newest = json.loads((tmp_path / "avro" / "staff_delta.v1.avsc").read_text())
    older = {**newest, "fields": [f for f in newest["fields"] if f["name"] != "caused_by"]}
    newest["fields"] = [{**f, "default": ""} if f["name"] == "caused_by" else f for f in newest["fields"]]
    (tmp_path / "avro" / "staff_delta.v1.avsc").write_text(json.dumps(older))
    (tmp_path / "avro" / "staff_delta.v2.avsc").write_text(json.dumps(newest))
    (tmp_path / "ids.json").write_text(json.dumps({**ids, "staff_delta.v2": 99}))
    both = Codec(tmp_path)
    delta = types.StaffDelta(
        corp_id="c", staff_id="s", day="d", counters={}, event_time_ms=1, received_at_ms=2, caused_by="e"
    )
    written_by_old = codec().encode(delta)[:-2]  # without caused_by: one length byte and "e"
    assert both.decode(written_by_old) == msgspec.structs.replace(delta, caused_by="")
    assert both.encode(delta)[4] == 99
