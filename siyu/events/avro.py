"""Avro's binary form of a record, written and read by straight-line Python that is made once from the schema.

What is written is byte for byte what Avro's specification says. What is read is refused unless every byte has a
meaning: no length or number out of range, no boolean but 0 and 1, no text that is not UTF-8, nothing left over. A
broken value costs no more than its length: every item takes a byte at least, and there is no item behind the end.

fastavro, which walks the schema for every value, takes about twice as long (``benchmarks/codec.py``). For a
record of ``number`` (long), ``text`` (string) and ``texts`` (array of string) the functions made here are::

    def write(record):
        parts = [
            header,
            longs[_number] if 0 <= (_number := record.number) < 8192 else long(_number),
            lengths[len(_text := record.text.encode())], _text,
        ]
        items = record.texts
        if not isinstance(items, list):
            raise TypeError
        if items:
            parts.append(lengths[len(items)])
            for item0 in items:
                parts += [lengths[len(value0 := item0.encode())], value0]
        parts += [end]
        return join(parts)

    def read(data):
        at = 5
        if (byte := data[at]) < 128:
            _number = byte >> 1 ^ -(byte & 1)
            at += 1
        else:
            _number, at = read_long(data, at)
        if size := short_string[data[at]]:
            end = at + size
            _text = data[at + 1 : end].decode()
            at = end
        else:
            _text, at = read_string(data, at)
        _texts = []
        while byte := data[at]:
            if byte & 129:
                count, at = read_count(data, at)
            else:
                count = byte >> 1
                at += 1
            for _ in range(count):
                if size := short_string[data[at]]:
                    end = at + size
                    item0 = data[at + 1 : end].decode()
                    at = end
                else:
                    item0, at = read_string(data, at)
                _texts.append(item0)
        at += 1
        if at != len(data):
            raise ValueError
        return make(_number, _text, _texts)

The common short forms stand in line; a function of its own reads or writes what is longer.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

Schema = Any
"""As JSON gives it."""


class SchemaError(ValueError):
    """A schema uses what nothing here reads or writes, or cannot read an older version of itself."""


def writer(schema: Schema, header: bytes) -> Callable[[Any], bytes]:
    """A function from an object with the record's fields as attributes to ``header`` and the record.

    It raises TypeError, ValueError or AttributeError when a field has a wrong type or is out of range.
    """
    fields = [(kind, f"record.{name}", f"_{name}") for name, kind in _field_types(schema).items()]
    write: Callable[[Any], bytes] = _function(
        ["def write(record):", *_indented(_writing(fields, "parts = [header, ")), "    return join(parts)"],
        header=header,
        join=b"".join,
        end=b"\x00",
        lengths=_LENGTHS,
        longs=_LONGS,
        long=_write_long,
        write_int=_write_int,
        write_bytes=_write_bytes,
        write_boolean=_write_boolean,
    )
    return write


def reader(written: Schema, wanted: Schema, header_size: int, make: Callable[..., Any]) -> Callable[[bytes], Any]:
    """A function from bytes of schema ``written`` to ``make(*fields)`` with the fields of schema ``wanted``, in order.

    A field that is not wanted is read and dropped, one that was not written has its default. The function raises
    IndexError or ValueError for bytes that are not such a record from ``header_size`` to their end.
    """
    written_types, wanted_types = _field_types(written), _field_types(wanted)
    defaults = {
        f"default_{field['name']}": _default(field) for field in wanted["fields"] if field["name"] not in written_types
    }
    arguments = []
    for name, kind in wanted_types.items():
        if name in written_types:
            _refuse_change(written_types[name], kind, name)
            arguments.append(f"_{name}")
        else:
            arguments.append(f"default_{name}()")
    read: Callable[[bytes], Any] = _function(
        [
            "def read(data):",
            f"    at = {header_size}",
            *_indented(line for name, kind in written_types.items() for line in _reading(kind, f"_{name}")),
            "    if at != len(data):",
            "        raise ValueError",
            f"    return make({', '.join(arguments)})",
        ],
        make=make,
        short_string=_SHORT_STRING,
        booleans=(False, True),
        read_long=_read_long,
        read_int=_read_int,
        read_bytes=_read_bytes,
        read_string=_read_string,
        read_count=_read_count,
        **defaults,
    )
    return read


def _function(lines: list[str], **names: Any) -> Any:
    """The function the lines define. From outside they hold names of fields only, which :func:`_field_types` checks."""
    made: dict[str, Any] = {}
    exec("\n".join(lines), names, made)  # noqa: S102
    (function,) = made.values()
    return function


def _indented(lines: Iterable[str], levels: int = 1) -> list[str]:
    return [" " * 4 * levels + line for line in lines]


# Schemas


def _field_types(schema: Schema) -> dict[str, Schema]:
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaError("the value of a topic is a record")
    types = {field["name"]: field["type"] for field in schema["fields"]}
    if len(types) < len(schema["fields"]) or not all(name.isidentifier() for name in types):
        raise SchemaError("a field has no name of its own")
    return types


def _refuse_change(written: Schema, wanted: Schema, name: str) -> None:
    match written, wanted:
        case {"type": "array", "items": old}, {"type": "array", "items": new}:
            _refuse_change(old, new, name)
        case {"type": "map", "values": old}, {"type": "map", "values": new}:
            _refuse_change(old, new, name)
        case _ if written != wanted and (written, wanted) != ("int", "long"):
            raise SchemaError(f"{name} was {written} in an older version and is {wanted}")


def _default(field: dict[str, Any]) -> Callable[[], Any]:
    """Makes the field's default, a new one each time: the list or dict of one event is never another's."""
    if "default" not in field:
        raise SchemaError(f"{field['name']} is missing in an older version and has no default")
    default = field["default"]
    try:
        if field["type"] == "bytes":  # JSON has none: Avro gives each byte as the character of that number
            default = default.encode("latin-1")
        writer({"type": "record", "fields": [field]}, b"")(SimpleNamespace(**{field["name"]: default}))
    except (TypeError, ValueError, AttributeError):
        raise SchemaError(f"the default of {field['name']} is not of its type") from None
    return lambda: copy.deepcopy(default)


# Writing


def _writing(values: list[tuple[Schema, str, str]], opening: str = "parts += [", depth: int = 0) -> list[str]:
    """Lines that add the bytes of some values to ``parts``; with each value comes a variable to keep it in."""
    lines: list[str] = []
    short: list[str] = []
    for schema, value, variable in values:
        match schema:
            case "string":
                short += [f"lengths[len({variable} := {value}.encode())]", variable]
                continue
            case "long":
                short.append(f"longs[{variable}] if 0 <= ({variable} := {value}) < {len(_LONGS)} else long({variable})")
                continue
            case "int" | "bytes" | "boolean":
                short.append(f"write_{schema}({value})")
                continue
            case {"type": "array", "items": items}:
                container, loop = "list", f"for item{depth} in items:"
                inner = [(items, f"item{depth}", f"value{depth}")]
            case {"type": "map", "values": items}:
                container, loop = "dict", f"for key{depth}, item{depth} in items.items():"
                inner = [("string", f"key{depth}", f"text{depth}"), (items, f"item{depth}", f"value{depth}")]
            case _:
                raise SchemaError(f"siyu.events.avro does not know {schema}")
        lines += [
            f"{opening}{', '.join(short)}]",
            f"items = {value}",
            f"if not isinstance(items, {container}):",
            "    raise TypeError",
            "if items:",
            "    parts.append(lengths[len(items)])",
            f"    {loop}",
            *_indented(_writing(inner, depth=depth + 1), 2),
        ]
        short, opening = ["end"], "parts += ["
    return [*lines, f"{opening}{', '.join(short)}]"]


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_VARINTS = [_varint(number) for number in range(1 << 14)]
_pack_three_bytes = struct.Struct("3B").pack
_pack_six_bytes = struct.Struct("6B").pack


def _write_long(number: int) -> bytes:
    """Quick for up to three bytes, as amounts take, and for six, as times do."""
    number = number << 1 if number >= 0 else ~(number << 1)  # zigzag, so that small negative numbers are short too
    if number < 1 << 14:
        return _VARINTS[number]
    if number < 1 << 21:
        return _pack_three_bytes(number & 127 | 128, number >> 7 & 127 | 128, number >> 14)
    if 1 << 35 <= number < 1 << 42:
        # In halves, because Python is quicker with numbers of up to 30 bits. Tables of more bits a step would be
        # quicker still in a small loop, but not where a million other objects pass through the processor's cache.
        low, high = number & (1 << 28) - 1, number >> 28
        return _pack_six_bytes(
            low & 127 | 128,
            low >> 7 & 127 | 128,
            low >> 14 & 127 | 128,
            low >> 21 | 128,
            high & 127 | 128,
            high >> 7,
        )
    if number >> 64:
        raise ValueError("a long has 64 bits")
    return _varint(number)


_LONGS = _VARINTS[::2]
"""From 0 on. A list, so that a float is no index of it."""


class _Lengths(dict[int, bytes]):
    """Lengths as longs: the common ones ready made, any other when asked."""

    def __missing__(self, length: int) -> bytes:
        return _write_long(length)


_LENGTHS = _Lengths(enumerate(_LONGS))


def _write_int(number: int) -> bytes:
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError("an int has 32 bits")
    return _write_long(number)


def _write_bytes(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError
    return _LENGTHS[len(value)] + value


def _write_boolean(value: bool) -> bytes:
    if not isinstance(value, bool):
        raise TypeError
    return b"\x01" if value else b"\x00"


# Reading


def _reading(schema: Schema, variable: str, depth: int = 0) -> list[str]:
    """Lines that set the variable to the value at ``at`` and move ``at`` behind it.

    Behind the end of the data, when a text was cut off: whoever looks there next gets an IndexError.
    """
    match schema:
        case "string" | "bytes":
            return [
                "if size := short_string[data[at]]:",
                "    end = at + size",
                f"    {variable} = data[at + 1 : end]{'.decode()' if schema == 'string' else ''}",
                "    at = end",
                "else:",
                f"    {variable}, at = read_{schema}(data, at)",
            ]
        case "long":
            return [
                "if (byte := data[at]) < 128:",
                f"    {variable} = byte >> 1 ^ -(byte & 1)",
                "    at += 1",
                "else:",
                f"    {variable}, at = read_long(data, at)",
            ]
        case "int":
            return [f"{variable}, at = read_int(data, at)"]
        case "boolean":
            return [f"{variable} = booleans[data[at]]", "at += 1"]
        case {"type": "array", "items": inner}:
            empty, key_lines, target = "[]", [], f"{variable}.append(item{depth})"
        case {"type": "map", "values": inner}:
            empty, key_lines, target = "{}", _reading("string", f"key{depth}"), f"{variable}[key{depth}] = item{depth}"
        case _:
            raise SchemaError(f"siyu.events.avro does not know {schema}")
    return [
        f"{variable} = {empty}",
        "while byte := data[at]:",
        "    if byte & 129:",
        "        count, at = read_count(data, at)",
        "    else:",
        "        count = byte >> 1",
        "        at += 1",
        "    for _ in range(count):",
        *_indented(key_lines, 2),
        *_indented(_reading(inner, f"item{depth}", depth + 1), 2),
        f"        {target}",
        "at += 1",
    ]


_SHORT_STRING = [1 + byte // 2 if byte < 128 and byte % 2 == 0 else 0 for byte in range(256)]
"""By its first byte, how many bytes a text or bytes of up to 63 take; 0 for more, and for a negative length."""

_NOT_SIX_BYTES = -(1 << 60)
"""Makes any sum of six negative."""


def _six_bytes(position: int) -> list[int]:
    """What a byte adds to a number of six bytes, zigzag undone; for one that has no place there, _NOT_SIX_BYTES."""
    return [
        (byte & 127) << 7 * position >> 1 if (byte > 127) is (position < 5) else _NOT_SIX_BYTES for byte in range(256)
    ]


_first, _second, _third, _fourth, _fifth, _sixth = (_six_bytes(position) for position in range(6))
_first[1::2] = [_NOT_SIX_BYTES] * 128  # an odd number is negative
_unpack_six_bytes = struct.Struct("6B").unpack_from


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    """Number and the position behind it. Quick for two and three bytes, as amounts take, and for six, as times do."""
    try:
        a, b, c, d, e, f = _unpack_six_bytes(data, at)
    except struct.error:
        return _read_any_long(data, at)
    if a < 128:
        number, size = a, 1
    elif b < 128:
        number, size = (a & 127) + (b << 7), 2
    elif c < 128:
        number, size = (a & 127) + ((b & 127) << 7) + (c << 14), 3
    else:
        number = _first[a] + _second[b] + _third[c] + _fourth[d] + _fifth[e] + _sixth[f]
        if number < 0:
            return _read_any_long(data, at)
        return number, at + 6
    return number >> 1 ^ -(number & 1), at + size


def _read_any_long(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := data[at]) > 127:
        number |= (byte & 127) << shift
        shift += 7
        at += 1
        if shift > 63:
            raise ValueError("a long has ten bytes at most")
    number |= byte << shift
    if number >> 64:
        raise ValueError("a long has 64 bits")
    return number >> 1 ^ -(number & 1), at + 1


def _read_int(data: bytes, at: int) -> tuple[int, int]:
    number, at = _read_long(data, at)
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError("an int has 32 bits")
    return number, at


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _read_long(data, at)
    if size < 0:
        raise ValueError("a length is not negative")
    return data[at : at + size], at + size


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    encoded, at = _read_bytes(data, at)
    return encoded.decode(), at


def _read_count(data: bytes, at: int) -> tuple[int, int]:
    """How many items the next block of an array or map has. A negative count says that the block's size follows."""
    count, at = _read_long(data, at)
    if count < 0:
        _, at = _read_long(data, at)
    if count == 0:
        raise ValueError("an end of more than one byte")
    return abs(count), at
