"""Welcome codes: valid 20 s of business time from the event, once per acquaintance (fact sheet 3.4).

A code that is unknown or too old gives 41050. When a welcome of the same acquaintance was delivered already (with this
code, or with the one of the half add before it) the answer is 41051.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from simulator.platform.errors import ApiError
from simulator.world import ContactChange, Pair


@dataclass(slots=True)
class Welcome:
    """One code that was given out, and what became of it."""

    event: ContactChange
    code: str
    expires_ms: int
    sent: bool = False
    refused: int = 0
    """Calls that came for it and were refused: too late or once more."""

    def truth(self) -> dict[str, Any]:
        return {
            "corp_id": self.event.corp_id,
            "staff_id": self.event.staff_id,
            "customer_id": self.event.customer_id,
            "event_time_ms": self.event.time_s * 1000,
            "sent": self.sent,
        }


class Welcomes:
    """All codes of all corps."""

    def __init__(self, seed: int, ttl_s: int) -> None:
        self._seed = seed
        self._ttl_ms = ttl_s * 1000
        self.issued: list[Welcome] = []
        self.late = 0
        """Calls for a code that was known and too old."""
        self._by_code: dict[tuple[str, str], Welcome] = {}
        self._greeted: set[Pair] = set()

    def issue(self, event: ContactChange) -> str:
        """A code for this event; empty when the acquaintance has been welcomed already."""
        if event.pair in self._greeted:
            return ""
        digest = hashlib.blake2b(f"{self._seed}|{len(self.issued)}|{event.pair}|{event.time_s}".encode()).hexdigest()
        code = digest[:43]
        welcome = Welcome(event, code, event.time_s * 1000 + self._ttl_ms)
        self.issued.append(welcome)
        self._by_code[event.corp_id, code] = welcome
        return code

    def parted(self, pair: Pair) -> None:
        """The pair separated: the next add is a new acquaintance."""
        self._greeted.discard(pair)

    def use(self, corp_id: str, code: str, now_ms: int) -> None:
        """Delivers the welcome. Raises ApiError 41050 or 41051."""
        welcome = self._by_code.get((corp_id, code))
        if welcome is None:
            raise ApiError(41050)
        if welcome.sent or welcome.event.pair in self._greeted:
            welcome.refused += 1
            raise ApiError(41051)
        if now_ms > welcome.expires_ms:
            welcome.refused += 1
            self.late += 1
            raise ApiError(41050)
        welcome.sent = True
        self._greeted.add(welcome.event.pair)

    @property
    def sent(self) -> int:
        return sum(w.sent for w in self.issued)

    def settled(self, now_ms: int) -> bool:
        """Whether nothing can change any more: every code was used, is of no use any more, or is too old."""
        return all(w.sent or w.event.pair in self._greeted or now_ms > w.expires_ms for w in self.issued)
