"""What the generated functions write and read is what fastavro writes and reads, for any schema they know.

The values here have every length and size at which a form of the encoding ends and the next begins.
"""

from __future__ import annotations

import io
import tracemalloc
from types import SimpleNamespace
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siyu.events.avro import SchemaError, reader, writer

EDGES = sorted({sign * (1 << bits) + step for bits in range(63) for sign in (1, -1) for step in (-1, 0, 1)})
EDGES += [2**63 - 1, -(2**63)]
LONG = st.one_of(st.integers(-3, 70), st.sampled_from(EDGES), st.integers(10**12, 2 * 10**12), st.integers()).filter(
    lambda number: -(2**63) <= number < 2**63
)
TEXT = st.one_of(st.text(max_size=6), st.integers(61, 66).map("x".__mul__), st.integers(30, 34).map("门".__mul__))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "bytes": st.binary(max_size=6) | st.integers(61, 66).map(bytes),
    "long": LONG,
    "int": LONG.filter(lambda number: -(2**31) <= number < 2**31),
    "boolean": st.booleans(),
}
KINDS = st.recursive(
    st.sampled_from(sorted(VALUES)),
    lambda kinds: st.one_of(
        kinds.map(lambda kind: {"type": "array", "items": kind}),
        kinds.map(lambda kind: {"type": "map", "values": kind}),
    ),
    max_leaves=3,
)
DEFAULTS: dict[str, Any] = {"string": "门", "bytes": "\xff\x00", "long": 2**40, "int": -1, "boolean": True}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case {"items": items}:
            return st.lists(values_of(items), max_size=3)
        case {"values": values}:
            return st.dictionaries(TEXT, values_of(values), max_size=3)
    return VALUES[kind]


def record(kinds: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in kinds.items()]}


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema and a record of it. The names are those the generated functions use themselves."""
    names = st.sampled_from(["at", "data", "end", "items", "item0", "join", "long", "make", "text", "write", "_"])
    kinds = draw(st.dictionaries(names, KINDS, max_size=5))
    return record(kinds), {name: draw(values_of(kind)) for name, kind in kinds.items()}


def fastavro_write(schema: Any, values: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema, named_schemas={}), values)
    return out.getvalue()


def fastavro_read(data: bytes, written: Any, wanted: Any = None) -> Any:
    """The record, or None when fastavro refuses the bytes or leaves some over."""
    schemas = [schema and fastavro.parse_schema(schema, named_schemas={}) for schema in (written, wanted)]
    source = io.BytesIO(data)
    try:
        values = fastavro.schemaless_reader(source, *schemas)
    except Exception:
        return None
    return values if source.tell() == len(data) else None


def own_read(data: bytes, written: Any, wanted: Any = None) -> Any:
    """The record as a dict, or None when it is refused."""
    wanted = wanted or written
    names = [field["name"] for field in wanted["fields"]]
    try:
        return reader(written, wanted, 0, lambda *values: dict(zip(names, values, strict=True)))(data)
    except (IndexError, ValueError):
        return None


def kinds_alike(left: Any, right: Any) -> bool:
    """Equal and of the same types all the way down: True is not 1."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, dict):
        return all(kinds_alike(value, right[key]) for key, value in left.items())
    return not isinstance(left, list) or all(map(kinds_alike, left, right))


@settings(deadline=None)
@given(records())
def test_bytes_written_are_fastavros_and_both_read_them_back(case: tuple[Any, Any]) -> None:
    schema, values = case
    written = writer(schema, b"head")(SimpleNamespace(**values))
    assert written == b"head" + fastavro_write(schema, values)
    assert kinds_alike(own_read(written[4:], schema), values)
    assert kinds_alike(fastavro_read(written[4:], schema), values)


def test_numbers_at_which_the_form_changes() -> None:
    schema = record({"a": {"type": "array", "items": "long"}, "b": "long"})
    for number in EDGES:
        written = writer(schema, b"")(SimpleNamespace(a=[number], b=number))
        assert written == fastavro_write(schema, {"a": [number], "b": number})
        assert own_read(written, schema) == {"a": [number], "b": number}


@pytest.mark.parametrize("size", [63, 64, 8191, 8192, 70_000])
def test_lengths_at_which_the_form_changes(size: int) -> None:
    kinds = {
        "a": "string",
        "b": "bytes",
        "c": {"type": "array", "items": "long"},
        "d": {"type": "map", "values": "long"},
    }
    values = {"a": "门" * (size // 3) + "x" * (size % 3), "b": bytes(size)}
    values |= {"c": list(range(size)), "d": {str(number): number for number in range(size)}}
    written = writer(record(kinds), b"")(SimpleNamespace(**values))
    assert written == fastavro_write(record(kinds), values)
    assert own_read(written, record(kinds)) == values


@settings(deadline=None)
@given(records(), st.data())
def test_an_older_record_is_read_as_fastavro_resolves_it(case: tuple[Any, Any], data: st.DataObject) -> None:
    """The newer schema drops fields, turns int into long, adds fields with defaults, and has another order."""
    older, values = case
    kept = [
        {"name": field["name"], "type": "long" if field["type"] == "int" else field["type"]}
        for field in older["fields"]
        if data.draw(st.booleans())
    ]
    added = [{"name": f"new_{kind}", "type": kind, "default": value} for kind, value in DEFAULTS.items()]
    added += [{"name": "new_list", "type": {"type": "array", "items": "long"}, "default": [1, 2]}]
    added += [{"name": "new_map", "type": {"type": "map", "values": "string"}, "default": {}}]
    newer = {**older, "fields": data.draw(st.permutations(kept + added))}
    written = fastavro_write(older, values)
    resolved = own_read(written, older, newer)
    assert resolved["new_bytes"] == b"\xff\x00"
    # fastavro leaves the default of bytes a text, which the specification does not.
    assert kinds_alike({**resolved, "new_bytes": "\xff\x00"}, fastavro_read(written, older, newer))


def test_the_default_list_of_one_record_is_not_anothers() -> None:
    newer = record({}) | {"fields": [{"name": "a", "type": {"type": "array", "items": "long"}, "default": []}]}
    read = reader(record({}), newer, 0, lambda items: items)
    read(b"").append(1)
    assert read(b"") == []


@settings(deadline=None)
@given(records(), st.data())
def test_every_cut_of_a_record_is_refused(case: tuple[Any, Any], data: st.DataObject) -> None:
    schema, values = case
    written = fastavro_write(schema, values)
    cuts = range(len(written)) if len(written) < 200 else [data.draw(st.integers(0, len(written) - 1))]
    names = [field["name"] for field in schema["fields"]]
    read = reader(schema, schema, 0, lambda *fields: dict(zip(names, fields, strict=True)))
    for cut in cuts:
        with pytest.raises((IndexError, ValueError)):
            read(written[:cut])
    with pytest.raises((IndexError, ValueError)):
        read(written + b"\x00")


@settings(deadline=None)
@given(records(), st.data())
def test_a_damaged_record_is_refused_or_read_as_fastavro_reads_it(case: tuple[Any, Any], data: st.DataObject) -> None:
    schema, values = case
    damaged = bytearray(fastavro_write(schema, values))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged)))
        removed = data.draw(st.integers(0, 2))
        damaged[place : place + removed] = data.draw(st.binary(max_size=12) | st.integers(0, 11).map(b"\xff".__mul__))
    read = own_read(bytes(damaged), schema)
    assert read is None or kinds_alike(read, fastavro_read(bytes(damaged), schema))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("boolean", b"\x02"),
        ("long", b"\x80" * 10 + b"\x00"),  # eleven bytes, and be it for a zero
        ("long", b"\xff" * 9 + b"\x02"),  # the 65th bit
        ("int", b"\x80\x80\x80\x80\x10"),  # 2 ** 31
        ("string", b"\x03x"),  # a length of -2
        ("string", b"\x83\x01" + b"x" * 66),  # a length of -66
        ("bytes", b"\x03x"),
        ("string", b"\x04\xff\xfe"),  # not UTF-8
        ("string", b"\x06\xed\xa0\x80"),  # half of a surrogate pair
        ({"type": "array", "items": "long"}, b"\x02\x02"),  # no end
        ({"type": "array", "items": "long"}, b"\x80\x00\x00"),  # a block of nothing
    ],
)
def test_bytes_without_a_meaning_are_refused(kind: Any, data: bytes) -> None:
    assert own_read(data, record({"a": kind})) is None


def test_a_negative_length_leads_to_nothing_read_twice() -> None:
    """Two bytes back from the second byte is the last one, whose length reaches from there over the whole value."""
    assert own_read(b"\x03x\x06", record({"a": "string", "b": "string"})) is None


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        ({"type": "array", "items": "long"}, b"\x02\x02\x04\x04\x06\x00", [1, 2, 3]),
        ({"type": "array", "items": "string"}, b"\x03\x06\x02a\x02b\x01\x02\x00\x00", ["a", "b", ""]),
        ({"type": "map", "values": "long"}, b"\x02\x02a\x02\x01\x06\x02b\x04\x00", {"a": 1, "b": 2}),
        ("long", b"\x80\x80\x00", 0),
    ],
    ids=["two blocks", "blocks that tell their sizes", "map in both kinds of block", "longer than need be"],
)
def test_forms_that_other_writers_use_are_read(kind: Any, data: bytes, value: Any) -> None:
    assert own_read(data, record({"a": kind})) == fastavro_read(data, record({"a": kind})) == {"a": value}


@pytest.mark.parametrize(
    "kind", ["string", "bytes", {"type": "array", "items": "long"}, {"type": "map", "values": "string"}]
)
@pytest.mark.parametrize("size", [2**20, 2**31, 2**40, 2**62, 2**63 - 1])
def test_a_length_that_lies_costs_neither_time_nor_memory(kind: Any, size: int) -> None:
    """A loop over so many items, or room for them, would not fit into a test."""
    data = fastavro_write(record({"n": "long"}), {"n": size}) + b"\x02" * 1_000
    read = reader(record({"a": kind, "b": kind}), record({"a": kind, "b": kind}), 0, lambda *fields: fields)
    tracemalloc.start()
    try:
        with pytest.raises((IndexError, ValueError)):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


WRONG = {
    "string": [b"a", 1, None, ["a"], "\ud800"],
    "bytes": ["a", 1, None, bytearray(b"a"), [1]],
    "long": ["1", b"1", None, 1.0, 1.5, 1e300, 2**63, -(2**63) - 1, 2**64, [1]],
    "int": ["1", None, 1.0, 2**31, -(2**31) - 1],
    "boolean": [0, 1, "true", None],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in WRONG.items() for value in values])
def test_a_value_of_a_wrong_type_or_out_of_range_is_refused(kind: str, value: Any) -> None:
    array, mapping = {"type": "array", "items": kind}, {"type": "map", "values": kind}
    for schema, wrong in ((kind, value), (array, [value]), (mapping, {"k": value}), (mapping, {1: value})):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            writer(record({"a": schema}), b"")(SimpleNamespace(a=wrong))


@pytest.mark.parametrize("value", [None, "ab", ("a",), {"a"}, 1, [("a", "b")]])
def test_what_is_no_list_or_no_dict_is_refused(value: Any) -> None:
    for kind in ({"type": "array", "items": "string"}, {"type": "map", "values": "string"}):
        with pytest.raises((TypeError, AttributeError)):
            writer(record({"a": kind}), b"")(SimpleNamespace(a=value))
    with pytest.raises((TypeError, AttributeError)):
        writer(record({"a": {"type": "array", "items": "string"}}), b"")(SimpleNamespace(a={"k": "v"}))


def test_a_record_without_a_field_is_refused() -> None:
    with pytest.raises(AttributeError):
        writer(record({"a": "string"}), b"")(SimpleNamespace())


@pytest.mark.parametrize(
    "kind",
    [
        "double",
        ["null", "string"],
        {"type": "enum", "name": "E", "symbols": ["A"]},
        {"type": "array", "items": "float"},
    ],
)
def test_a_kind_of_value_nobody_taught_it_is_refused_at_the_start(kind: Any) -> None:
    with pytest.raises(SchemaError):
        writer(record({"a": kind}), b"")
    with pytest.raises(SchemaError):
        reader(record({"a": kind}), record({"a": kind}), 0, dict)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (record({}), record({"a": "string"})),
        (record({"a": "long"}), record({"a": "int"})),
        (record({"a": "string"}), record({"a": "bytes"})),
        (record({"a": {"type": "array", "items": "string"}}), record({"a": {"type": "array", "items": "long"}})),
        (record({"a": {"type": "map", "values": "string"}}), record({"a": {"type": "array", "items": "string"}})),
        (record({}), record({}) | {"fields": [{"name": "a", "type": "long", "default": "1"}]}),
        (record({"a-b": "long"}), record({"a-b": "long"})),
        (record({}) | {"fields": [{"name": "a", "type": "long"}] * 2}, record({"a": "long"})),
        ("string", "string"),
    ],
)
def test_schemas_that_do_not_go_together_are_refused_at_the_start(older: Any, newer: Any) -> None:
    with pytest.raises(SchemaError):
        reader(older, newer, 0, dict)
