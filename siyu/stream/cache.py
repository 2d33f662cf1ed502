"""Decoded states in memory, within a budget of bytes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeAlias

import msgspec

from siyu.stream.types import S

Held: TypeAlias = tuple[S | None, Mapping[str, int]]
"""A key's state, None when there is none, and its timers."""

_ENTRY_BYTES = 100
"""Of a dictionary, for one entry."""


class HotStates(Generic[S]):
    """Decoded states and timers in two generations that together stay within a budget of bytes.

    What two generations did not touch goes. An LRU order would cost a list operation a record; this costs one
    dictionary look-up. Sizes are sampled: measuring every state would cost more than decoding it again.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.young: dict[bytes, Held[S]] = {}
        self._old: dict[bytes, Held[S]] = {}
        self._half = budget_bytes / 2
        self._mean_bytes = 0.0

    def promote(self, keys: Collection[bytes]) -> list[bytes]:
        """Brings the known ones of ``keys`` into ``young`` and returns the unknown ones."""
        young, old = self.young, self._old
        missing = []
        for key in keys:
            if key not in young:
                kept = old.get(key)
                if kept is None:
                    missing.append(key)
                else:
                    young[key] = kept
        return missing

    def weigh(self, key: bytes) -> None:
        """Takes one state into the mean by which the budget is kept."""
        size = sys.getsizeof(key) + _deep_bytes(self.young[key]) + _ENTRY_BYTES
        self._mean_bytes += (size - self._mean_bytes) * (0.05 if self._mean_bytes else 1.0)

    def age(self) -> bool:
        """Before a batch only: forgets the old generation once the young one is full, and says whether it was."""
        if len(self.young) * self._mean_bytes < self._half:
            return False
        self._old, self.young = self.young, {}
        return True


def _deep_bytes(value: Any) -> int:
    """Memory of a value and all it holds."""
    size = sys.getsizeof(value)
    if isinstance(value, msgspec.Struct):
        return size + sum(_deep_bytes(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return size + sum(_deep_bytes(k) + _deep_bytes(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return size + sum(map(_deep_bytes, value))
    return size
