"""Members in a tree of departments, forty customers, what callbacks said, and rules that a test may change."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from simulator.world.corp import Callback
from simulator.world.groups import Groups
from simulator.world.people import Customer, Department, Staff
from simulator.world.relations import Change, ContactChange
from simulator.world.tags import TagBook

START_S = 1_760_000_000
FOREIGN_APP = "1000099"
"""Agent id of an app that is not the test's."""
WECOM_USER = "wmC40"
"""The one customer who uses WeCom themselves."""


@dataclass
class Crm:
    """The rig's world with more people in it."""

    wecom: Any
    told: list[dict[str, str]] = field(default_factory=list)
    """Every callback by its elements."""

    @property
    def corp(self) -> Any:
        return self.wecom.world

    @property
    def now_s(self) -> int:
        return self.wecom.clock.now_ms() // 1000

    @property
    def tags(self) -> TagBook:
        return self.corp.of(TagBook)

    @property
    def groups(self) -> Groups:
        return self.corp.of(Groups)

    def rules(self, family: Any, **changed: Any) -> Any:
        """Changes rules of a state class, or of a function that reads them; returns the state."""
        state = self.corp.of(family)
        if isinstance(state, msgspec.Struct):
            self.corp._families[family] = msgspec.structs.replace(state, **changed)
        else:
            state.rules = msgspec.structs.replace(state.rules, **changed)
        return self.corp.of(family)

    def meet(self, staff: str, *customers: str, change: Change = "add", **more: Any) -> None:
        """Something happens between a member and customers, two seconds later than the last time."""
        self.wecom.advance(2)
        for customer in customers:
            assert self.corp.happen(ContactChange(self.now_s, self.corp.corp_id, staff, customer, change, **more))

    def events(self, event: str, change: str = "") -> list[dict[str, str]]:
        return [e for e in self.told if e["Event"] == event and change in ("", e.get("ChangeType"))]

    def advance(self, seconds: float) -> None:
        """Moves the clock; a token that has grown old meanwhile is fetched anew."""
        self.wecom.advance(seconds)
        self.wecom._token = ""

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        return await self.wecom.get(path, **query)

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        return await self.wecom.post(path, body)

    async def ok(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer of a POST that has to succeed."""
        answer = await self.wecom.post(path, body)
        assert answer["errcode"] == 0, answer
        return answer

    async def code(self, path: str, **body: Any) -> int:
        return (await self.wecom.post(path, body))["errcode"]

    async def follow(self, customer: str, staff: str = "s1") -> dict[str, Any]:
        """How externalcontact/get shows one member's side."""
        answer = await self.get("externalcontact/get", external_userid=customer)
        return next(f for f in answer["follow_user"] if f["userid"] == staff)


@pytest.fixture
async def crm(wecom, monkeypatch):
    """s1–s3 in the root, s4 in 2, s5 in 3 below it; wmC1 … wmC40; nobody is a friend yet."""
    made = Crm(wecom)
    people = made.corp.people
    people.known = frozenset(f"wmC{number}" for number in range(1, 41))
    people.departments |= {2: Department(2, "销售部", 1), 3: Department(3, "一组", 2), 4: Department(4, "仓库", 1)}
    for userid, department in {"s4": 2, "s5": 3}.items():
        people.staff[userid] = Staff(userid, f"店员{userid}", (department,))
    plain = people.customer

    def customer_of(external_userid: str) -> Customer:
        people.customer_of = None
        person = plain(external_userid)
        people.customer_of = customer_of
        if external_userid == WECOM_USER:
            return replace(person, type=2, corp_name="远方贸易", unionid="")
        return person

    people.customer_of = customer_of
    send = made.corp._send

    def listen(callback: Callback) -> None:
        made.told.append({e.tag: e.text or "" for e in ET.fromstring(callback.content)})
        send(callback)

    monkeypatch.setattr(made.corp, "_send", listen)
    return made
