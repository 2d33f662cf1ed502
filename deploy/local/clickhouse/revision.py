"""Native blocks as clients of newer protocol revisions read them (Go's driver, and with it Grafana's plugin).

ClickHouse's answer to `client_protocol_version` differs from plain Native in two places: a block begins with a block
info, and since revision 54454 a byte after each column's type says whether a custom serialization follows. The engine
in this process writes plain Native only, so both are added here; where a column ends follows from its type.
"""

import re

from deploy.local.clickhouse.exceptions import ClickHouseException, Code

__all__ = ["CUSTOM_SERIALIZATION", "with_block_info"]

CUSTOM_SERIALIZATION = 54454  # the first revision with the byte; clients of older ones get plain Native
# Field 1: not an overflow block; field 2: bucket -1, as a block that is no part of a two-level aggregation has; end.
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"

# Bytes of one value.
_WIDTHS = {
    **{f"{sign}Int{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64, 128, 256)},
    **{f"Decimal{bits}": bits // 8 for bits in (32, 64, 128, 256)},
    "Float32": 4, "Float64": 8, "BFloat16": 2, "Bool": 1, "Enum8": 1, "Enum16": 2, "Date": 2, "Date32": 4,
    "DateTime": 4, "DateTime64": 8, "Time": 4, "Time64": 8, "UUID": 16, "IPv4": 4, "IPv6": 16, "Nothing": 1,
}  # fmt: skip
_TYPE = re.compile(r"(\w+)(?:\((.*)\))?", re.DOTALL)


def with_block_info(block: bytes) -> bytes:
    """One plain Native block in the form of revision 54454. Raises ClickHouseException for a type not known here."""
    columns, at = _number(block, 0)
    rows, at = _number(block, at)
    told, begin = bytearray(_BLOCK_INFO), 0
    for _ in range(columns):
        name_length, at = _number(block, at)
        type_length, type_at = _number(block, at + name_length)
        at = type_at + type_length
        told += block[begin:at] + b"\x00"
        type_name, begin = block[type_at:at].decode(), at
        # The version of each dictionary in the type stands before all values.
        at = _end(type_name, rows, block, at + 8 * type_name.count("LowCardinality(") * bool(rows))
    return bytes(told + block[begin:])


def _end(type_name: str, rows: int, block: bytes, at: int) -> int:
    """Where the values of a column that begins at `at` end."""
    if not rows:
        return at
    parts = _TYPE.fullmatch(type_name)
    name, arguments = (parts[1], _arguments(parts[2] or "")) if parts else ("", [])
    if name in _WIDTHS:
        return at + rows * _WIDTHS[name]
    match name:
        case "String":
            for _ in range(rows):
                length, at = _number(block, at)
                at += length
            return at
        case "FixedString":
            return at + rows * int(arguments[0])
        case "Decimal":
            digits = int(arguments[0])
            return at + rows * (4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32)
        case "Nullable":
            return _end(arguments[0], rows, block, at + rows)
        case "LowCardinality":
            # How wide an index is, the dictionary, an index for each row.
            width, keys = 1 << block[at], int.from_bytes(block[at + 8 : at + 16], "little")
            at = _end(
                _TYPE.sub(r"\2", arguments[0]) if "Nullable" in arguments[0] else arguments[0], keys, block, at + 16
            )
            return at + 8 + rows * width
        case "SimpleAggregateFunction":
            return _end(arguments[-1], rows, block, at)
        case "Tuple":
            for element in arguments:
                at = _end(_without_name(element), rows, block, at)
            return at
        case "Array" | "Map" | "Nested":
            # The ends of the rows' values, then the values of all rows; a map's are keys, then values.
            at += rows * 8
            values = int.from_bytes(block[at - 8 : at], "little")
            for element in arguments:
                at = _end(_without_name(element) if name == "Nested" else element, values, block, at)
            return at
    raise ClickHouseException(
        Code.NOT_IMPLEMENTED,
        f"A column of type {type_name} in Native with client_protocol_version; cast it or use JSON",
    )


def _without_name(element: str) -> str:
    """`Tuple(id UInt64, name String)` names its elements, `Tuple(UInt64, String)` does not."""
    named = re.match(r"(?:`(?:[^`\\]|\\.)*`|\w+) (?=\w)", element)
    return element[named.end() :] if named else element


def _arguments(text: str) -> list[str]:
    found, depth, quoted, begin = [], 0, False, 0
    for i, sign in enumerate(text):
        if sign == "'" and text[i - 1 : i] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (sign == "(") - (sign == ")")
            if sign == "," and depth == 0:
                found.append(text[begin:i].strip())
                begin = i + 1
    return [*found, text[begin:].strip()] if text else []


def _number(block: bytes, at: int) -> tuple[int, int]:
    """A LEB128 number and where it ends."""
    number = shift = 0
    while True:
        byte = block[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
