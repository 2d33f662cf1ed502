"""More people than the plain world has, what callbacks said, and another app of the corp."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from simulator.world.acquisition import AcquisitionBook
from simulator.world.corp import Callback
from simulator.world.groups import Groups
from simulator.world.people import Department, Staff
from simulator.world.relations import Change, ContactChange
from simulator.world.roster import Roster
from simulator.world.statistics import Statistics
from simulator.world.transfers import Transfers

START_S = 1_760_000_000
DAY_S = 86_400
CUSTOMERS = [f"wmC{number}" for number in range(1, 13)]


@dataclass
class Organisation:
    """The rig's world with five members, twelve customers and a tree of departments."""

    wecom: Any
    told: list[dict[str, str]] = field(default_factory=list)
    """Every callback by its elements; lists as text of their items."""

    @property
    def corp(self) -> Any:
        return self.wecom.world

    @property
    def now_s(self) -> int:
        return self.wecom.clock.now_ms() // 1000

    def transfers(self, **rules: Any) -> Transfers:
        return self._with(Transfers, rules)

    def groups(self, **rules: Any) -> Groups:
        return self._with(Groups, rules)

    def roster(self, **rules: Any) -> Roster:
        return self._with(Roster, rules)

    def statistics(self, **rules: Any) -> Statistics:
        return self._with(Statistics, rules)

    def book(self, **rules: Any) -> AcquisitionBook:
        return self._with(AcquisitionBook, rules)

    def friends(self, staff: str, *customers: str, change: Change = "add") -> None:
        """The customers become the member's."""
        for customer in customers:
            event = ContactChange(self.now_s, self.corp.corp_id, staff, customer, change)
            assert self.corp.happen(event)

    def events(self, kind: str, *, since: int = 0) -> list[dict[str, str]]:
        """Callbacks of a kind, ``Event/ChangeType`` or ``Event``, without head and time."""
        named = kind.split("/")
        return [e for e in self.told[since:] if e["Event"] == named[0] and named[1:] in ([], [e.get("ChangeType")])]

    def advance(self, seconds: float) -> None:
        """Moves the clock and what becomes due; a token that has grown old meanwhile is fetched anew."""
        self.wecom.advance(seconds)
        self.wecom._token = ""

    async def ok(self, path: str, body: Any) -> dict[str, Any]:
        """The answer of a POST that has to succeed."""
        answer = await self.wecom.post(path, body)
        assert answer["errcode"] == 0, answer
        return answer

    async def code(self, path: str, body: Any) -> int:
        return (await self.wecom.post(path, body))["errcode"]

    def _with(self, family: Callable[[Any], Any], rules: dict[str, Any]) -> Any:
        state = self.corp.of(family)
        state.rules = msgspec.structs.replace(state.rules, **rules)
        return state


@pytest.fixture
async def org(wecom, monkeypatch):
    """The organisation; its transfers are never refused unless a test wants it."""
    made = Organisation(wecom)
    people = made.corp.people
    people.known = frozenset(CUSTOMERS)
    people.departments |= {2: Department(2, "销售部", 1), 3: Department(3, "一组", 2), 4: Department(4, "仓库", 1)}
    for userid, department in {"s4": 2, "s5": 3}.items():
        people.staff[userid] = Staff(userid, f"店员{userid}", (department,))
    send = made.corp._send

    def listen(callback: Callback) -> None:
        elements = ET.fromstring(callback.content)
        shown = {e.tag: (e.text or "") if not len(e) else ",".join(i.text or "" for i in e) for e in elements}
        made.told.append({**shown, "agent": callback.only_agent})
        send(callback)

    monkeypatch.setattr(made.corp, "_send", listen)
    made.transfers(refused_share=0.0)
    made.advance(70)
    made.told.clear()
    return made
