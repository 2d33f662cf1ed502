"""One corp's world: people, relationships, and whatever the families of endpoints keep; changed by people and by calls.

What people do becomes callbacks; what is done through the API does not (fact sheet 1.7), so only ``happen`` and
``emit`` speak to the outside. Pure but for the callbacks handed to ``send``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from simulator.callbacks import Fields, contact_fields, message
from simulator.platform.welcomes import Welcomes
from simulator.world.people import People
from simulator.world.relations import ContactChange, Relations
from simulator.world.schedule import Schedule

F = TypeVar("F")
R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Callback:
    """One event as its corp's apps are told of it, before encryption."""

    corp_id: str
    event: str
    content: bytes
    only_agent: str = ""
    """Sent to this app alone; empty: to every app that takes the event."""
    change: ContactChange | None = None
    """What happened, where it is a change of a relationship."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Something a customer was shown by us: what they may react to."""

    time_s: int
    kind: str
    """``mass``, ``welcome``, ``moment``, ``group`` …"""
    staff_id: str
    customer_id: str
    ref: str
    """Id of the message, moment or code."""
    content: str = ""
    """Its text, shortened: reactions may depend on what is said, the truth tells by what strategy."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message in a chat between a customer and a staff member."""

    time_s: int
    staff_id: str
    customer_id: str
    by_customer: bool


@dataclass(frozen=True, slots=True)
class Complaint:
    """A customer reported a staff member to the platform."""

    time_s: int
    staff_id: str
    customer_id: str
    ref: str = ""
    """What it is about, where that is known."""


class CorpWorld:
    """Everything of one corp. Times are epoch seconds of business time."""

    def __init__(
        self,
        corp_id: str,
        *,
        seed: int,
        people: People,
        relations: Relations,
        schedule: Schedule,
        send: Callable[[Callback], None],
        welcome_s: int = 20,
        rules: Mapping[str, Any] | None = None,
    ) -> None:
        """``rules``: the scenario's ``platform`` section, read by :meth:`rules_of`."""
        self.corp_id = corp_id
        self.seed = seed
        self.people = people
        self.relations = relations
        self.schedule = schedule
        self.welcomes = Welcomes(seed, welcome_s)
        self.emitted: Counter[tuple[str, str]] = Counter()
        """(Event, ChangeType) → callbacks so far."""
        self.changes: list[ContactChange] = []
        """All that people did to relationships, in order."""
        self.happened: list[Callable[[ContactChange], None]] = []
        """Told of every change of a relationship, in order."""
        self.touches: list[Touch] = []
        self.touched: list[Callable[[Touch], None]] = []
        self.said: list[Callable[[Said], None]] = []
        self.complaints: list[Complaint] = []
        self.complained: list[Callable[[Complaint], None]] = []
        self.bars: list[Callable[[ContactChange], bool]] = []
        """Asked before people change a relationship: whether something keeps it from happening (a ban …)."""
        self.refusals: list[Callable[[str, str, int], int]] = []
        """Asked before every call, with (agent id, endpoint, second): the errcode it is refused with; 0: none."""
        self._send = send
        self._rules = rules or {}
        self._families: dict[type, Any] = {}

    def of(self, family: Callable[[CorpWorld], F]) -> F:
        """The state that a family of endpoints keeps of this corp: ``family(self)``, made at its first use."""
        found = self._families.get(family)  # type: ignore[call-overload]
        if found is None:
            found = self._families[family] = family(self)  # type: ignore[index]
        return found  # type: ignore[no-any-return]

    def rules_of(self, section: str, kind: type[R]) -> R:
        """A section of the scenario's platform rules; defaults where it is silent. Raises msgspec.ValidationError."""
        return msgspec.convert(self._rules.get(section, {}), type=kind)

    def random(self, *parts: object) -> random.Random:
        """Chance that depends on the seed, the corp and ``parts`` alone."""
        return random.Random("|".join(map(str, (self.seed, self.corp_id, *parts))))

    def happen(self, event: ContactChange) -> bool:
        """Somebody did something: the relationship changes, with its callback. False when it cannot happen now."""
        if not self.relations.can(event) or any(barred(event) for barred in self.bars):
            return False
        relationship = self.relations.apply(event)
        self.changes.append(event)
        code = self.welcomes.issue(event) if event.welcome else ""
        if event.change.startswith("delete_") and not relationship.friend:
            self.welcomes.parted(event.pair)
        self.emit(event.time_s, contact_fields(event, code), change=event)
        for told in self.happened:
            told(event)
        return True

    def refuses(self, agent_id: str, endpoint: str, now_s: int) -> int:
        """Errcode of a call that is not let in at all; 0: it is."""
        return next((code for refuses in self.refusals if (code := refuses(agent_id, endpoint, now_s))), 0)

    def touch(self, touch: Touch) -> None:
        """A customer was shown something."""
        self.touches.append(touch)
        for told in self.touched:
            told(touch)

    def say(self, said: Said) -> None:
        """Somebody wrote in a chat."""
        for told in self.said:
            told(said)

    def complain(self, complaint: Complaint) -> None:
        """A customer complained."""
        self.complaints.append(complaint)
        for told in self.complained:
            told(complaint)

    def emit(
        self,
        time_s: int,
        fields: Fields,
        *,
        sender: str | None = "sys",
        only_agent: str = "",
        change: ContactChange | None = None,
    ) -> None:
        """Sends an event to the corp's apps. ``fields`` begin with ``Event``; ``sender`` None: no FromUserName."""
        names = dict(fields)
        event = names.get("Event", "")
        self.emitted[event, names.get("ChangeType", "")] += 1
        content = message(self.corp_id, time_s, fields, sender=sender)
        self._send(Callback(self.corp_id, event, content, only_agent, change))

    def push(self, event: str, content: bytes, *, only_agent: str = "") -> None:
        """Sends content that is no event XML (fact sheet 2.6) to the apps that take ``event``."""
        self.emitted[event, ""] += 1
        self._send(Callback(self.corp_id, event, content, only_agent))
