"""States as bytes: every stored state says in which version it was written, and older versions are upgraded on read.

Layout: one byte of layout (0 = state only), one byte of state version, then msgpack. The layout byte leaves room for
what else may have to live with a key (timers) without touching what is already stored.
"""

from __future__ import annotations

from typing import Generic

import msgspec

from siyu.stream.errors import StateError
from siyu.stream.types import Processor, S

_LAYOUT = 0
_HEADER_BYTES = 2


class StateCodec(Generic[S]):
    """Bytes of ``processor.state_type``. Equal states encode to equal bytes."""

    def __init__(self, processor: Processor[S]) -> None:
        self._processor = processor
        self._header = bytes((_LAYOUT, processor.state_version))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(processor.state_type).decode

    def encode(self, state: S) -> bytes:
        return self._header + self._encode(state)

    def decode(self, data: bytes) -> S:
        """Raises StateError without the data in it."""
        try:
            if data[:_HEADER_BYTES] == self._header:
                return self._decode(data[_HEADER_BYTES:])
            return self._upgrade(data)
        except (msgspec.MsgspecError, IndexError) as error:
            raise StateError(
                f"processor {self._processor.name}: a state of version {data[1:2].hex() or '?'} does not decode as "
                f"{self._processor.state_type.__name__} version {self._processor.state_version} "
                f"({type(error).__name__}); raise state_version and add an upgrade for a changed type"
            ) from None

    def _upgrade(self, data: bytes) -> S:
        layout, version = data[0], data[1]
        target = self._processor.state_version
        if layout != _LAYOUT or not can_read(self._processor, version):
            raise StateError(
                f"processor {self._processor.name}: found a state of layout {layout} version {version}, this program "
                f"reads layout {_LAYOUT} up to version {target} with upgrades from {sorted(self._processor.upgrades)}; "
                "deploy the version that wrote it, or one with the missing upgrade"
            )
        builtins = msgspec.msgpack.decode(data[_HEADER_BYTES:])
        for step in range(version, target):
            builtins = self._processor.upgrades[step](builtins)
        return msgspec.convert(builtins, self._processor.state_type)


def can_read(processor: Processor[S], version: int) -> bool:
    """Whether states written as ``version`` are this version's or have a complete chain of upgrades to it."""
    return all(v in processor.upgrades for v in range(version, processor.state_version)) and (
        version <= processor.state_version
    )
