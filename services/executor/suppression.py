"""Who must not be contacted, known whole by every executor: the last gate before a call asks here.

Of all records about a person the one with the newest event time counts, and of two with the same time the one that
forbids. So neither the order of arrival nor a repeat changes the answer.

A person takes 24 bytes: 128 bits of SHA-256 over corp and customer, and the winning record as one number. A million
people fit in 48 MiB (a table of twice as many places). That any of a hundred million others is taken for one of them
has a probability below 10^-24.
"""

from __future__ import annotations

import hashlib
from array import array

from siyu.events import Suppression, codec
from siyu.events.ids import customer_key
from siyu.ops.tables import RecordRefused

TOPIC = "suppressions"
_FULL = 0.7
"""Share of the places in use at which the table doubles: searches stay short (3 places on average)."""
_FIRST_PLACES = 1 << 10
_NEWEST_MS = 1 << 61
"""Bound of an event time, so that it and its verdict fit in 64 bits."""


class SuppressionError(RecordRefused):
    """A record that does not say who or when. The message names the field, never a value."""


def suppression_key(record: Suppression) -> bytes:
    """Key in the topic: ``corp|customer|source|active``.

    Compaction keeps the *last* record of a key, not the one with the newest event time. One key per person would
    lose a suppression of 12:00 to a permission of 11:00 that arrives later. A source reports in its own order.
    """
    return f"{customer_key(record.corp_id, record.customer_id)}|{record.source}|{record.active}".encode()


class SuppressionTable:
    """Follows ``suppressions``."""

    def __init__(self) -> None:
        self._people = 0
        self._suppressed = 0
        self._allot(_FIRST_PLACES)

    def __len__(self) -> int:
        """How many people must not be contacted."""
        return self._suppressed

    @property
    def bytes_held(self) -> int:
        """Memory of the table itself."""
        return sum(column.itemsize * len(column) for column in (self._high, self._low, self._newest))

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Takes one record of the topic. Raises SuppressionError or siyu.events.CodecError; then nothing has changed.

        A tombstone is refused: a suppression ends by a record that says so, never by one that says nothing.
        """
        if value is None:
            raise SuppressionError("a tombstone lifts no suppression")
        record = codec().decode_as(Suppression, value)
        check(record)
        self.put(record)

    def put(self, record: Suppression) -> None:
        """Like :meth:`apply`, for a record that has been checked."""
        newest = 2 * record.event_time_ms + record.active
        high, low = _hash(record.corp_id, record.customer_id)
        place = self._find(high, low)
        before = self._newest[place]
        if newest <= before:
            return
        self._newest[place] = newest
        self._suppressed += (newest & 1) - (before & 1 if before >= 0 else 0)
        if before < 0:
            self._high[place], self._low[place] = high, low
            self._people += 1
            if self._people > _FULL * len(self._newest):
                self._grow()

    def suppressed(self, corp_id: str, customer_id: str) -> bool:
        """Whether the person must not be contacted, as far as this table has read."""
        newest = self._newest[self._find(*_hash(corp_id, customer_id))]
        return newest >= 0 and bool(newest & 1)

    def newest_ms(self, corp_id: str, customer_id: str) -> int | None:
        """Event time of the record that counts; None: nothing was ever said about this person."""
        newest = self._newest[self._find(*_hash(corp_id, customer_id))]
        return newest >> 1 if newest >= 0 else None

    def _find(self, high: int, low: int) -> int:
        """The person's place, or the free one where it would be."""
        mask = len(self._newest) - 1
        place = low & mask
        while self._newest[place] >= 0 and not (self._low[place] == low and self._high[place] == high):
            place = (place + 1) & mask
        return place

    def _allot(self, places: int) -> None:
        self._high = array("Q", bytes(8 * places))
        self._low = array("Q", bytes(8 * places))
        self._newest = array("q", [-1]) * places
        """Twice the event time, plus one when it forbids; -1: a free place. So the greatest number is what counts."""

    def _grow(self) -> None:
        high, low, newest = self._high, self._low, self._newest
        self._allot(2 * len(newest))
        for number, held in enumerate(newest):
            if held >= 0:
                place = self._find(high[number], low[number])
                self._high[place], self._low[place], self._newest[place] = high[number], low[number], held


def check(record: Suppression) -> None:
    """Raises SuppressionError when a record does not say who or when."""
    if not record.corp_id or not record.customer_id:
        raise SuppressionError("corp_id or customer_id is empty")
    if "|" in record.corp_id or "|" in record.customer_id:
        raise SuppressionError("corp_id or customer_id holds |")
    if record.active not in (0, 1):
        raise SuppressionError("active is neither 0 nor 1")
    if not 0 <= record.event_time_ms < _NEWEST_MS:
        raise SuppressionError("event_time_ms is no time")


def _hash(corp_id: str, customer_id: str) -> tuple[int, int]:
    digest = hashlib.sha256(customer_key(corp_id, customer_id).encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
