"""Ids without a table: an index becomes an opaque id by a seeded permutation, and an id its index again by arithmetic.

Eight million customers have ids of 32 characters, and nobody keeps them: an id begins with a word of 60 bits that is
the index, permuted; the words behind it follow from the first, so that a made-up id is known for one. Characters are
in the order of their code points: ids sort as their first words do. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
W = TypeVar("W", int, Array)

_64 = (1 << 64) - 1
_ODD_1, _ODD_2 = 0x9E3779B97F4A7C15, 0x6A09E667F3BCC909
"""Fractions of the golden ratio and of the square root of 2: odd, and without a pattern."""
_ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_WORD_BITS, _WORD_CHARS = 60, 10
_WORD = (1 << _WORD_BITS) - 1
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_PAIR_OF = {pair: number for number, pair in enumerate(_PAIRS)}
_PAIR_CODES = np.frombuffer("".join(_PAIRS).encode(), dtype="<u2")
_SHIFTS = (48, 36, 24, 12, 0)
_ROUNDS = 4
_RECENT = 1 << 16


def stirred(x: W) -> W:
    """64 bits that depend on all 64 bits of ``x``, which is one whole number or an array of them."""
    x = (x ^ (x >> 32)) * _ODD_1 & _64
    x = (x ^ (x >> 29)) * _ODD_2 & _64
    x = x ^ (x >> 32)
    return x


def key_of(*parts: object) -> int:
    """64 bits that stand for a seed and a purpose."""
    return int.from_bytes(hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def uniform(indexes: Array, key: int) -> Array:
    """A trait of each index, between 0 and 1: the same for the same key, without being kept anywhere."""
    bits: Array = stirred(stirred(indexes.astype(np.uint64)) ^ key)
    return (bits >> 11) * 2.0**-53


def generator(*parts: object) -> np.random.Generator:
    """Chance for many at once, from a seed and a purpose."""
    return np.random.Generator(np.random.PCG64(key_of(*parts)))


class Permutation:
    """Numbers of ``2 * half_bits`` bits onto themselves (a Feistel network): forth and back."""

    def __init__(self, key: int, half_bits: int) -> None:
        self._half = half_bits
        self._mask = (1 << half_bits) - 1
        self._keys = [stirred((key + number * _ODD_1) & _64) >> 1 for number in range(1, _ROUNDS + 1)]

    def forth(self, x: W) -> W:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (stirred(right + key) & self._mask)
        return (left << self._half) | right

    def back(self, x: W) -> W:
        left, right = x >> self._half, x & self._mask
        for key in reversed(self._keys):
            left, right = right ^ (stirred(left + key) & self._mask), left
        return (left << self._half) | right


class IdSpace:
    """Ids of one kind: ``prefix`` and ten characters a word."""

    def __init__(self, key: int, *, prefix: str, words: int) -> None:
        self.prefix = prefix
        self.length = len(prefix) + _WORD_CHARS * words
        self._permutation = Permutation(key, _WORD_BITS // 2)
        self._checks = [stirred(key ^ number) for number in range(1, words)]
        self._recent: dict[str, int] = {}
        """Ids seen lately → their indexes: what happens to a customer asks for them many times in a row."""

    def order(self, indexes: Array) -> Array:
        """What to sort indexes by so that their ids are sorted."""
        return self._permutation.forth(indexes.astype(np.uint64))

    def id(self, index: int) -> str:
        """The id of one index."""
        first = self._permutation.forth(index)
        words = [first, *(stirred(first ^ check) & _WORD for check in self._checks)]
        text = self.prefix + "".join([_PAIRS[word >> shift & 0xFFF] for word in words for shift in _SHIFTS])
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[text] = index
        return text

    def ids(self, indexes: Array) -> list[str]:
        """The ids of many."""
        first = self.order(indexes)
        words = [first, *(stirred(first ^ check) & _WORD for check in self._checks)]
        codes = np.empty((len(indexes), len(words) * 5), dtype="<u2")
        for number, word in enumerate(words):
            for place in range(5):
                codes[:, number * 5 + place] = _PAIR_CODES[(word >> (48 - 12 * place)) & 0xFFF]
        letters, size, prefix = codes.tobytes().decode(), self.length - len(self.prefix), self.prefix
        return [prefix + letters[at : at + size] for at in range(0, len(letters), size)]

    def index(self, text: str) -> int | None:
        """The index behind an id; None for what never was one."""
        seen = self._recent.get(text)
        if seen is not None:
            return seen
        if len(text) != self.length or not text.startswith(self.prefix):
            return None
        start = len(self.prefix)
        first = 0
        for at in range(start, start + _WORD_CHARS, 2):
            pair = _PAIR_OF.get(text[at : at + 2])
            if pair is None:
                return None
            first = first << 12 | pair
        index = self._permutation.back(first)
        return index if self.id(index) == text else None


class NumberSpace:
    """Numbers of eight digits behind a prefix, as phones and membership cards have them; indexes below 10^8."""

    def __init__(self, key: int, prefix: str) -> None:
        self._prefix = prefix
        self._permutation = Permutation(key, 14)

    def number(self, index: int) -> str:
        at = self._permutation.forth(index)
        while at >= 10**8:  # walks on inside the permutation's cycle until the number has eight digits
            at = self._permutation.forth(at)
        return f"{self._prefix}{at:08d}"


class KnownIds:
    """Whether an id is one of the first ``size`` of a space: arithmetic, where a set would take a gigabyte."""

    def __init__(self, space: IdSpace, size: int) -> None:
        self._space = space
        self._size = size

    def __contains__(self, text: object) -> bool:
        index = self._space.index(text) if isinstance(text, str) else None
        return index is not None and index < self._size

    def __len__(self) -> int:
        return self._size


class Ids(Sequence[str]):
    """Ids spelt when somebody looks at them: counting them costs nothing."""

    def __init__(self, space: IdSpace, indexes: Array) -> None:
        self._space = space
        self._indexes = indexes

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return Ids(self._space, self._indexes[at])
        return self._space.id(int(self._indexes[at]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._space.ids(self._indexes))

    def __contains__(self, text: object) -> bool:
        index = self._space.index(text) if isinstance(text, str) else None
        return index is not None and bool((self._indexes == index).any())
