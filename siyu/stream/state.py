"""States as bytes: every stored state says in which version it was written, and older versions are upgraded on read.

Layout: one byte of layout, one byte of state version, then msgpack. Layout 0 is the state alone; layout 1 has the key's
timers before it: two bytes of their length, then a map of name → due (epoch ms).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic

import msgspec

from siyu.stream.errors import StateError
from siyu.stream.types import NO_TIMERS, Processor, S

PLAIN, TIMED = 0, 1
_HEADER_BYTES = 2
_LENGTH_BYTES = 2
_MAX_TIMERS_BYTES = (1 << 8 * _LENGTH_BYTES) - 1
_encode_timers = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_timers = msgspec.msgpack.Decoder(dict[str, int]).decode


def version_of(data: bytes) -> int:
    """The state version that a stored state was written in."""
    return data[1]


def due_times(data: bytes) -> Collection[int]:
    """When the timers in a stored state of layout 1 are due, epoch ms."""
    return _split(data)[0].values()


def _split(data: bytes) -> tuple[dict[str, int], int]:
    """The timers of a layout 1 state, and where the state begins."""
    begin = _HEADER_BYTES + _LENGTH_BYTES
    end = begin + int.from_bytes(data[_HEADER_BYTES:begin], "big")
    return _decode_timers(data[begin:end]), end


class StateCodec(Generic[S]):
    """Bytes of ``processor.state_type`` and its timers. Equal states encode to equal bytes."""

    def __init__(self, processor: Processor[S]) -> None:
        self._processor = processor
        self._header = bytes((PLAIN, processor.state_version))
        self._timed_header = bytes((TIMED, processor.state_version))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(processor.state_type).decode

    def encode(self, state: S, timers: Mapping[str, int] = NO_TIMERS) -> bytes:
        """Raises ValueError when a key has more timers than 64 kB hold."""
        if not timers:
            return self._header + self._encode(state)
        packed = _encode_timers(dict(timers))
        if len(packed) > _MAX_TIMERS_BYTES:
            raise ValueError("too many timers for one key")
        return self._timed_header + len(packed).to_bytes(_LENGTH_BYTES, "big") + packed + self._encode(state)

    def decode(self, data: bytes) -> tuple[S, Mapping[str, int]]:
        """Raises StateError without the data in it."""
        try:
            if data[:_HEADER_BYTES] == self._header:
                return self._decode(data[_HEADER_BYTES:]), NO_TIMERS
            timers, begin = _split(data) if data[0] == TIMED else (NO_TIMERS, _HEADER_BYTES)
            if data[:_HEADER_BYTES] == self._timed_header:
                return self._decode(data[begin:]), timers
            return self._upgrade(data, begin), timers
        except (msgspec.MsgspecError, IndexError) as error:
            raise StateError(
                f"processor {self._processor.name}: a state of version {data[1:2].hex() or '?'} does not decode as "
                f"{self._processor.state_type.__name__} version {self._processor.state_version} "
                f"({type(error).__name__}); raise state_version and add an upgrade for a changed type"
            ) from None

    def _upgrade(self, data: bytes, begin: int) -> S:
        layout, version = data[0], version_of(data)
        target = self._processor.state_version
        if layout not in (PLAIN, TIMED) or not can_read(self._processor, version):
            raise StateError(
                f"processor {self._processor.name}: found a state of layout {layout} version {version}, this program "
                f"reads layouts 0 and 1 up to version {target} with upgrades from {sorted(self._processor.upgrades)}; "
                "deploy the version that wrote it, or one with the missing upgrade"
            )
        builtins = msgspec.msgpack.decode(data[begin:])
        for step in range(version, target):
            builtins = self._processor.upgrades[step](builtins)
        return msgspec.convert(builtins, self._processor.state_type)


def can_read(processor: Processor[S], version: int) -> bool:
    """Whether states written as ``version`` are this version's or have a complete chain of upgrades to it."""
    return all(v in processor.upgrades for v in range(version, processor.state_version)) and (
        version <= processor.state_version
    )
