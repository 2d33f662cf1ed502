"""Avro in the Confluent wire format (``0x00``, 4-byte schema id, body): what every topic value is.

Ids are fixed in ``schemas/ids.json``, so no registry is asked at run time. A value is written with the newest version
of its type's schema; a value written with an older version is read through Avro's schema resolution. Every version has
functions of its own, made at start (``siyu.events.avro``), so a value costs the walk over its bytes and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from siyu.events import avro, types

_HEADER_SIZE = 5
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
    types.LedgerEntry,
    types.QuotaState,
    types.QuotaLease,
    types.ConfigRecord,
    types.ControlRecord,
    types.Suppression,
    types.WecomToken,
    types.GuardSignal,
    types.GuardState,
    types.GuardAudit,
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
        self._writers: dict[type[types.Event], Callable[[types.Event], bytes]] = {}
        self._readers: dict[bytes, tuple[type[types.Event], Callable[[bytes], types.Event]]] = {}
        for event_type in _TYPES:
            name = schema_name(event_type)
            versions = sorted(
                (int(key.rpartition(".v")[2]), schema_id)
                for key, schema_id in ids.items()
                if key.rpartition(".v")[0] == name
            )
            if not versions:
                raise CodecError(f"schemas/ids.json has no id for {name}")
            schemas = [
                (
                    b"\x00" + schema_id.to_bytes(4, "big"),
                    json.loads((directory / "avro" / f"{name}.v{version}.avsc").read_text()),
                )
                for version, schema_id in versions
            ]
            newest_header, newest = schemas[-1]
            if tuple(field["name"] for field in newest["fields"]) != event_type.__struct_fields__:
                raise CodecError(f"{event_type.__name__} has not the fields of its newest schema in their order")
            try:
                self._writers[event_type] = avro.writer(newest, newest_header)
                for header, schema in schemas:
                    self._readers[header] = (event_type, avro.reader(schema, newest, _HEADER_SIZE, event_type))
            except avro.SchemaError as error:
                raise CodecError(f"schemas of {name}: {error}") from error

    def encode(self, event: types.Event) -> bytes:
        """The event in the wire format. Raises CodecError for a type without a schema or a field of a wrong type."""
        try:
            write = self._writers[type(event)]
        except KeyError:
            raise CodecError(f"no schema for {type(event).__name__}") from None
        try:
            return write(event)
        except (TypeError, ValueError, AttributeError) as error:
            # Not chained: what Python says of a value may quote it, and it may be personal.
            raise CodecError(f"{type(event).__name__} does not fit its schema: {type(error).__name__}") from None

    def decode(self, value: bytes | None) -> types.Event:
        """The event behind the bytes. Raises CodecError for anything that is not one, trailing bytes included."""
        if value is None:
            raise CodecError("not in the Avro wire format")
        try:
            event_type, read = self._readers[value[:_HEADER_SIZE]]
        except KeyError:
            if len(value) < _HEADER_SIZE or value[0] != 0:
                raise CodecError("not in the Avro wire format") from None
            raise CodecError(f"unknown schema id {int.from_bytes(value[1:_HEADER_SIZE], 'big')}") from None
        try:
            return read(value)
        except (IndexError, ValueError) as error:
            raise CodecError(f"broken {event_type.__name__}: {type(error).__name__}") from None

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
