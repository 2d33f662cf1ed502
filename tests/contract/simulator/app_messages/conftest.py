"""A corp with departments and two more apps, one of them without a callback URL; staff press nothing unless told."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

import pytest

from simulator.apps import App
from simulator.world.corp import Callback
from simulator.world.discipline import Discipline
from simulator.world.messages import MessageBook
from simulator.world.people import Department
from simulator.world.suspension import Suspension

AGENT, SECOND, DEAF = "1000002", "1000003", "1000004"
"""The rig's app, one like it, and one without callback URL."""
NEVER = {"never_share": 1.0}
"""Habits of staff who confirm nothing."""


@dataclass
class Office:
    """The rig's world, seen from its apps."""

    wecom: Any
    told: list[tuple[Callback, ET.Element]] = field(default_factory=list)
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def now_s(self) -> int:
        return self.wecom.clock.ms // 1000

    @property
    def world(self) -> Any:
        return self.wecom.world

    @property
    def book(self) -> MessageBook:
        return self.world.of(MessageBook)

    def rule(self, habits: dict[str, Any] | None = None, **sections: dict[str, Any]) -> None:
        """Starts messages, discipline and suspension anew under other rules."""
        self.world._rules = {"habits": NEVER if habits is None else habits, **sections}
        for family in (MessageBook, Discipline, Suspension):
            self.world._families.pop(family, None)
        for hooks in (self.world.bars, self.world.happened, self.world.complained, self.world.refusals):
            hooks.clear()
        self.world.of(Discipline)

    async def post(self, path: str, agent: str = AGENT, **body: Any) -> dict[str, Any]:
        if agent not in self._tokens:
            query = {"corpid": self.world.corp_id, "corpsecret": self.secret(agent)}
            answer = (await self.wecom.client.get("/cgi-bin/gettoken", params=query)).json()
            self._tokens[agent] = answer["access_token"]
        self.wecom._token = self._tokens[agent]
        answer = await self.wecom.post(path, body)
        if answer["errcode"] == 42001:  # a test that moves days outlives its token
            del self._tokens[agent]
            return await self.post(path, agent, **body)
        return answer

    def secret(self, agent: str) -> str:
        return self.wecom.corp.secret if agent == AGENT else "secret-" + agent

    async def send(self, agent: str = AGENT, **body: Any) -> dict[str, Any]:
        """A text to s1, changed by ``body``; None takes a field away."""
        message = {"touser": "s1", "msgtype": "text", "agentid": int(agent), "text": {"content": "hi"}, **body}
        message = {name: value for name, value in message.items() if value is not None}
        return await self.post("message/send", agent, **message)

    async def card(self, agent: str = AGENT, *, to: str = "s1", **fields: Any) -> dict[str, Any]:
        """A card with two buttons, changed by ``fields``; None takes a field away."""
        card = {name: value for name, value in {**button_card(), **fields}.items() if value is not None}
        return await self.send(agent, touser=to, msgtype="template_card", text=None, template_card=card)

    def events(self, name: str) -> list[ET.Element]:
        return [event for _, event in self.told if event.findtext("Event") == name]


def button_card(task_id: str = "task-1") -> dict[str, Any]:
    return {
        "card_type": "button_interaction",
        "main_title": {"title": "清理客户", "desc": "待处理 20 位"},
        "task_id": task_id,
        "button_list": [{"text": "已处理", "style": 1, "key": "done"}, {"text": "跳过", "style": 2, "key": "skip"}],
    }


@pytest.fixture
def office(wecom) -> Office:
    office = Office(wecom)
    for agent, url in ((SECOND, "http://receiver/second"), (DEAF, "")):
        app = App(wecom.corp.corp_id, agent, office.secret(agent), "QDG6eK", "j" * 43, url)
        wecom.platform.tokens._apps[wecom.corp.corp_id].append(app)
    people = wecom.world.people
    people.departments |= {2: Department(2, "华南", 1), 3: Department(3, "广州", 2)}
    people.staff["s2"].departments, people.staff["s3"].departments = (2,), (3,)
    office.rule()
    wecom.world._send = lambda callback: office.told.append((callback, ET.fromstring(callback.content)))
    return office
