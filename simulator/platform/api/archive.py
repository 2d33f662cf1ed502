"""Conversation archiving (fact sheet 2.1): no call of its own here, only the word that there is something to fetch.

Messages are fetched with a native library that speaks to another host; this stand-in has none of it. Archived chats are
those of the members in ``welcome.archive_staff`` with customers who have agreed.
"""

from __future__ import annotations

import msgspec

from simulator.platform.api.welcome import Consents, WelcomeRules
from simulator.platform.endpoint import Api
from simulator.world.corp import CorpWorld, Said

API = Api()


class ArchiveRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``archive``. The platform documents neither number."""

    agent_id: str = "2000004"
    """Of the archive itself, as the official sample has it."""
    notify_s: int = 15
    """The word comes so long after the first new message, once for all that came meanwhile."""


class Archive:
    """Which messages wait to be fetched."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.rules = corp.rules_of("archive", ArchiveRules)
        self._archived = corp.rules_of("welcome", WelcomeRules).archive_staff
        self._consents = corp.of(Consents)
        self._due = False
        corp.said.append(self._hear)

    def _hear(self, said: Said) -> None:
        if said.staff_id not in self._archived or (said.staff_id, said.customer_id) not in self._consents.given:
            return
        if not self._due:
            self._due = True
            self._corp.schedule.at(said.time_s + self.rules.notify_s, self._notify)

    def _notify(self, time_s: int) -> None:
        self._due = False
        self._corp.emit(time_s, [("Event", "msgaudit_notify"), ("AgentID", self.rules.agent_id)])


ALWAYS = (Archive,)
