"""Welcome codes: valid 20 s of business time from the event, once per acquaintance (fact sheet 3.4).

A code that is unknown or too old gives 41050. When a welcome of the same acquaintance was delivered already (with this
code, or with the one of the half add before it) the answer is 41051; for another app, as long as the first one's
delivery takes, 41096 ("being distributed"), which is no proof of delivery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulator.platform.errors import ApiError
from simulator.world.relations import ContactChange, Pair

_DISTRIBUTING_MS = 2_000
"""How long a delivery takes, for another app; the platform documents the code, not the time."""


@dataclass(slots=True)
class Welcome:
    """One code that was given out, and what became of it."""

    event: ContactChange
    code: str
    expires_ms: int
    sent: bool = False
    sent_ms: int = 0
    sent_by: str = ""
    """Agent id of the app whose call delivered it."""
    refused: set[int] = field(default_factory=set)
    """What calls for it were answered with that did not deliver it."""

    def truth(self) -> dict[str, Any]:
        return {
            "corp_id": self.event.corp_id,
            "staff_id": self.event.staff_id,
            "customer_id": self.event.customer_id,
            "event_time_ms": self.event.time_s * 1000,
            "sent": self.sent,
            "refused": sorted(self.refused),
        }


class Welcomes:
    """All codes of one corp."""

    def __init__(self, seed: int, ttl_s: int) -> None:
        self._seed = seed
        self._ttl_ms = ttl_s * 1000
        self.issued: list[Welcome] = []
        self.sent = 0
        """Welcomes delivered."""
        self.late = 0
        """Calls for a code that was known and too old."""
        self._by_code: dict[str, Welcome] = {}
        self._greeted: set[Pair] = set()

    def issue(self, event: ContactChange) -> str:
        """A code for this event; empty when the acquaintance has been welcomed already."""
        if event.pair in self._greeted:
            return ""
        digest = hashlib.blake2b(f"{self._seed}|{len(self.issued)}|{event.pair}|{event.time_s}".encode()).hexdigest()
        code = digest[:43]
        welcome = Welcome(event, code, event.time_s * 1000 + self._ttl_ms)
        self.issued.append(welcome)
        self._by_code[code] = welcome
        return code

    def parted(self, pair: Pair) -> None:
        """The pair separated: the next add is a new acquaintance."""
        self._greeted.discard(pair)

    def refuse(self, code: str, errcode: int) -> None:
        """Notes what a call for a code was answered with."""
        if (welcome := self._by_code.get(code)) is not None:
            welcome.refused.add(errcode)

    def use(
        self, code: str, agent_id: str, now_ms: int, check: Callable[[ContactChange], None] | None = None
    ) -> ContactChange:
        """Delivers the welcome; returns what it answers. Raises ApiError 41050, 41051 or 41096.

        ``check`` may refuse a code that is good, and leaves it good.
        """
        welcome = self._by_code.get(code)
        if welcome is None:
            raise ApiError(41050)
        if welcome.sent or welcome.event.pair in self._greeted:
            competing = welcome.sent and welcome.sent_by != agent_id
            raise ApiError(41096 if competing and now_ms - welcome.sent_ms < _DISTRIBUTING_MS else 41051)
        if now_ms > welcome.expires_ms:
            self.late += 1
            raise ApiError(41050)
        if check is not None:
            check(welcome.event)
        welcome.sent, welcome.sent_ms, welcome.sent_by = True, now_ms, agent_id
        self.sent += 1
        self._greeted.add(welcome.event.pair)
        return welcome.event

    def settled(self, now_ms: int) -> bool:
        """Whether nothing can change any more: every code was used, is of no use any more, or is too old."""
        return all(w.sent or w.event.pair in self._greeted or now_ms > w.expires_ms for w in self.issued)
