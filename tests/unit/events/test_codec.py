"""Every typed event survives its schema, as fastavro writes it; what is not one is refused without being quoted."""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
import traceback
import typing

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
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
SCHEMAS = {
    name: fastavro.parse_schema(json.loads((schemas_dir() / "avro" / f"{name}.avsc").read_text()), named_schemas={})
    for name in json.loads((schemas_dir() / "ids.json").read_text())
}
NEWEST = {
    cls: max(
        (name for name in SCHEMAS if name.rpartition(".v")[0] == schema_name(cls)),
        key=lambda name: int(name.rpartition(".v")[2]),
    )
    for cls in EVENT_TYPES
}


def fastavro_value(event: Event) -> bytes:
    """The event in the wire format, written by fastavro."""
    schema_id = json.loads((schemas_dir() / "ids.json").read_text())[NEWEST[type(event)]]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMAS[NEWEST[type(event)]], msgspec.structs.asdict(event))
    return b"\x00" + schema_id.to_bytes(4, "big") + out.getvalue()


def fastavro_event(cls: type[Event], value: bytes) -> Event | None:
    """The event fastavro reads behind the header, None when it refuses the bytes or leaves some over."""
    body = io.BytesIO(value[5:])
    try:
        fields = fastavro.schemaless_reader(body, SCHEMAS[NEWEST[cls]], None)
    except Exception:
        return None
    return cls(**fields) if body.tell() == len(value) - 5 else None


@settings(deadline=None)
@given(ANY_EVENT)
def test_what_is_encoded_decodes_to_the_same_event(event: Event) -> None:
    assert codec().decode(codec().encode(event)) == event


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_bytes_are_those_of_fastavro(cls: type[Event], data: st.DataObject) -> None:
    event = data.draw(events_of(cls))
    value = fastavro_value(event)
    assert codec().encode(event) == value
    assert codec().decode(value) == event


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_value_is_refused_or_read_as_fastavro_reads_it(cls: type[Event], data: st.DataObject) -> None:
    damaged = bytearray(codec().encode(data.draw(events_of(cls))))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(5, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        event = codec().decode(bytes(damaged))
    except CodecError:
        return
    assert event == fastavro_event(cls, bytes(damaged))


@settings(deadline=None)
@given(ANY_EVENT, st.data())
def test_a_cut_or_lengthened_value_is_refused(event: Event, data: st.DataObject) -> None:
    value = codec().encode(event)
    cut = data.draw(st.integers(0, len(value) - 1))
    with pytest.raises(CodecError):
        codec().decode(value[:cut])
    with pytest.raises(CodecError):
        codec().decode(value + b"\x00")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_an_event_or_a_codec_error_and_nothing_else(value: bytes) -> None:
    for prefix in (b"", b"\x00\x00\x00\x00\x02"):
        message = ""
        try:
            codec().decode(prefix + value)
        except CodecError as error:
            message = str(error)
        assert len(value) < 4 or value not in message.encode()


DELTA = types.StaffDelta(
    corp_id="c",
    staff_id="13800000001",
    day="2026-01-01",
    counters={"adds": 1},
    event_time_ms=1,
    received_at_ms=2,
    caused_by="e",
)


def test_the_wire_format_is_confluents_with_the_id_of_ids_json() -> None:
    ids = json.loads((schemas_dir() / "ids.json").read_text())
    value = codec().encode(DELTA)
    assert value[0] == 0
    assert int.from_bytes(value[1:5], "big") == ids[NEWEST[types.StaffDelta]]


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x06", b"\x00\xff\xff\xff\xff"])
def test_what_has_no_known_header_is_refused(value: bytes | None) -> None:
    with pytest.raises(CodecError):
        codec().decode(value)


def test_an_event_of_another_type_than_expected_is_refused() -> None:
    assert codec().decode_as(types.StaffDelta, codec().encode(DELTA)) == DELTA
    with pytest.raises(CodecError, match="expected Action, got StaffDelta"):
        codec().decode_as(types.Action, codec().encode(DELTA))


@pytest.mark.parametrize(
    "changes",
    [
        {"staff_id": b"13800000001"},
        {"staff_id": "13800000001\ud800"},
        {"counters": {"adds": "13800000001"}},
        {"counters": {13800000001: 1}},
        {"counters": ["13800000001"]},
        {"event_time_ms": 13800000001.0},
        {"event_time_ms": 13800000001**2},
        {"event_time_ms": None},
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_being_quoted(changes: dict[str, typing.Any]) -> None:
    with pytest.raises(CodecError) as caught:
        codec().encode(msgspec.structs.replace(DELTA, **changes))
    assert "13800000001" not in "".join(traceback.format_exception(caught.value))


def test_threads_share_one_codec() -> None:
    """Each thread codes its own events, with a switch of threads after nearly every step."""
    failures: list[object] = []
    start = threading.Barrier(4)

    def code(number: int) -> None:
        events = [msgspec.structs.replace(DELTA, staff_id=f"{number}-{n}", counters={"adds": n}) for n in range(300)]
        start.wait()
        failures.extend(event for event in events if codec().decode(codec().encode(event)) != event)

    threads = [threading.Thread(target=code, args=(number,)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_the_type_mirrors_its_newest_schema_field_for_field(cls: type[Event]) -> None:
    assert [f["name"] for f in SCHEMAS[NEWEST[cls]]["fields"]] == [f.name for f in msgspec.structs.fields(cls)]


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
    """Copies our schemas, gives each an older version without its last field, and reads such a value."""
    (tmp_path / "avro").mkdir()
    ids = {}
    defaults = {"string": "", "bytes": "", "long": 0}
    for number, (cls, name) in enumerate(NEWEST.items()):
        newest = json.loads((schemas_dir() / "avro" / f"{name}.avsc").read_text())
        older = {**newest, "fields": newest["fields"][:-1]}
        newest["fields"][-1]["default"] = defaults[newest["fields"][-1]["type"]]
        for version, schema in ((1, older), (2, newest)):
            ids[f"{schema_name(cls)}.v{version}"] = number * 2 + version
            (tmp_path / "avro" / f"{schema_name(cls)}.v{version}.avsc").write_text(json.dumps(schema))
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    both = Codec(tmp_path)

    @settings(deadline=None)
    @given(ANY_EVENT)
    def old_and_new_values_are_read(event: Event) -> None:
        name, fields = schema_name(type(event)), msgspec.structs.asdict(event)
        older = fastavro.parse_schema(json.loads((tmp_path / "avro" / f"{name}.v1.avsc").read_text()), named_schemas={})
        out = io.BytesIO()
        fastavro.schemaless_writer(out, older, fields)
        last = list(fields)[-1]
        without_last = msgspec.structs.replace(event, **{last: type(fields[last])()})
        assert both.decode(b"\x00" + ids[f"{name}.v1"].to_bytes(4, "big") + out.getvalue()) == without_last
        assert both.encode(event)[1:5] == ids[f"{name}.v2"].to_bytes(4, "big")
        assert both.decode(both.encode(event)) == event

    old_and_new_values_are_read()


def test_a_schema_that_is_not_its_types_is_refused_at_the_start(tmp_path) -> None:
    shutil.copytree(schemas_dir(), tmp_path, dirs_exist_ok=True)
    path = tmp_path / "avro" / f"{NEWEST[types.StaffDelta]}.avsc"
    schema = json.loads(path.read_text())
    path.write_text(json.dumps({**schema, "fields": schema["fields"][::-1]}))
    with pytest.raises(CodecError, match="StaffDelta"):
        Codec(tmp_path)
    path.write_text(json.dumps({**schema, "fields": [{**field, "type": "double"} for field in schema["fields"]]}))
    with pytest.raises(CodecError, match="staff_delta"):
        Codec(tmp_path)
