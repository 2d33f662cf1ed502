"""Avro in the Confluent wire format (``0x00``, 4-byte schema id, body): what every topic value is.

Ids are fixed in ``schemas/ids.json``, so no registry is asked at run time. A value is written with the newest version
of its type's schema; a value written with an older version is read through Avro's schema resolution.
"""

from __future__ import annotations

import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import fastavro
import msgspec

from siyu.events import types

_MAGIC_AND_ID = 5
_TYPES: tuple[type[types.Event], ...] = (
    types.RawCallback,
    types.ContactEvent,
    types.PaymentEvent,
    types.RelationshipFact,
    types.OrderFact,
    types.StaffDelta,
    types.StaffDaySnapshot,
    types.Action,
    types.ActionOutcome,
)

E = TypeVar("E", bound=types.Event)


class CodecError(ValueError):
    """Bytes that are not a value of a known schema. The message never quotes the bytes: they may hold personal data."""


def schemas_dir() -> Path:
    """``schemas/`` of this checkout: the schemas are part of the code, not a deployment's choice."""
    return Path(__file__).resolve().parents[2] / "schemas"


def schema_name(event_type: type[types.Event]) -> str:
    """``StaffDaySnapshot`` → ``staff_day_snapshot``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event_type.__name__).lower()


class Codec:
    """Encodes and decodes every typed event; one instance per process is enough (see :func:`codec`)."""

    def __init__(self, directory: Path) -> None:
        """Reads ``ids.json`` and ``avro/<name>.v<n>.avsc`` below ``directory``; raises CodecError if they disagree."""
        ids: dict[str, int] = json.loads((directory / "ids.json").read_text())
        if len(set(ids.values())) != len(ids):
            raise CodecError("schemas/ids.json gives one id to two schemas")
        self._writers: dict[type[types.Event], tuple[bytes, Any]] = {}
        self._readers: dict[int, tuple[type[types.Event], Any, Any]] = {}
        for event_type in _TYPES:
            name = schema_name(event_type)
            versions = sorted(
                (int(key.rpartition(".v")[2]), schema_id)
                for key, schema_id in ids.items()
                if key.rpartition(".v")[0] == name
            )
            if not versions:
                raise CodecError(f"schemas/ids.json has no id for {name}")
            parsed = {
                schema_id: fastavro.parse_schema(
                    json.loads((directory / "avro" / f"{name}.v{version}.avsc").read_text()), named_schemas={}
                )
                for version, schema_id in versions
            }
            newest_id = versions[-1][1]
            newest = parsed[newest_id]
            self._writers[event_type] = (b"\x00" + newest_id.to_bytes(4, "big"), newest)
            for schema_id, schema in parsed.items():
                self._readers[schema_id] = (event_type, schema, None if schema_id == newest_id else newest)

    def encode(self, event: types.Event) -> bytes:
        """The event in the wire format. Raises CodecError for a type without a schema or a field of a wrong type."""
        try:
            prefix, schema = self._writers[type(event)]
        except KeyError:
            raise CodecError(f"no schema for {type(event).__name__}") from None
        out = io.BytesIO(prefix)
        out.seek(_MAGIC_AND_ID)
        try:
            fastavro.schemaless_writer(out, schema, msgspec.structs.asdict(event))
        except (TypeError, ValueError, AttributeError) as error:
            # Not chained: fastavro quotes the offending value, which may be personal.
            raise CodecError(f"{type(event).__name__} does not fit its schema: {type(error).__name__}") from None
        return out.getvalue()

    def decode(self, value: bytes | None) -> types.Event:
        """The event behind the bytes. Raises CodecError for anything that is not one, trailing bytes included."""
        if value is None or len(value) < _MAGIC_AND_ID or value[0] != 0:
            raise CodecError("not in the Avro wire format")
        schema_id = int.from_bytes(value[1:_MAGIC_AND_ID], "big")
        try:
            event_type, writer, reader = self._readers[schema_id]
        except KeyError:
            raise CodecError(f"unknown schema id {schema_id}") from None
        data = io.BytesIO(value)
        data.seek(_MAGIC_AND_ID)
        try:
            fields: Any = fastavro.schemaless_reader(data, writer, reader)
        except Exception as error:  # fastavro raises many kinds, among them EOFError and IndexError
            raise CodecError(f"broken {event_type.__name__}: {type(error).__name__}") from None
        if data.tell() != len(value):
            raise CodecError(f"broken {event_type.__name__}: trailing bytes")
        return event_type(**fields)

    def decode_as(self, event_type: type[E], value: bytes | None) -> E:
        """Like :meth:`decode`, and raises CodecError when it is another type."""
        event = self.decode(value)
        if not isinstance(event, event_type):
            raise CodecError(f"expected {event_type.__name__}, got {type(event).__name__}")
        return event


@cache
def codec() -> Codec:
    """The codec over this checkout's ``schemas/``."""
    return Codec(schemas_dir())
