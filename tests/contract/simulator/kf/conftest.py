"""A corp with a customer-service account, what its callbacks said, and no chance in it unless a test wants some."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

import pytest

from simulator.world.corp import Callback
from simulator.world.kf import KfDesk
from simulator.world.media import MediaBook

SURE = {"unsafe_share": 0.0}
IDLE = {"silent_share": 1.0, "take_median_s": 10**9, "quiet_end_s": 10**9, "spread": 0.0}
"""Servicers who do nothing by themselves."""


@dataclass
class Kf:
    """The rig's world, seen from its customer-service desk."""

    wecom: Any
    told: list[dict[str, list[str]]] = field(default_factory=list)
    """Every callback: element → its values."""

    @property
    def now_s(self) -> int:
        return self.wecom.clock.ms // 1000

    @property
    def desk(self) -> KfDesk:
        return self.wecom.world.of(KfDesk)

    def rule(self, habits: dict[str, Any] | None = None, **rules: Any) -> None:
        """Starts the desk anew under other rules."""
        self.wecom.world._rules = {"kf": {**SURE, **rules}, "kf_habits": IDLE if habits is None else habits}
        self.wecom.world._families.pop(KfDesk, None)

    def media(self, kind: str = "image") -> str:
        content = self.wecom.world.of(MediaBook).add(kind, "message", b"x", "application/octet-stream", "x", self.now_s)
        return content.media_id

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.wecom.post(f"kf/{path}", body)
        if answer["errcode"] != 42001:
            return answer
        self.wecom._token = ""  # a test that moves days outlives its token
        return await self.wecom.post(f"kf/{path}", body)

    async def ok(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.post(path, **body)
        assert answer["errcode"] == 0, answer
        return answer

    async def open(self, *servicers: str, name: str = "客服") -> str:
        kfid = (await self.ok("account/add", name=name, media_id=self.media()))["open_kfid"]
        if servicers:
            await self.ok("servicer/add", open_kfid=kfid, userid_list=list(servicers))
        return kfid

    async def state(self, kfid: str, customer: str = "wmC1") -> tuple[int, str]:
        answer = await self.ok("service_state/get", open_kfid=kfid, external_userid=customer)
        return answer["service_state"], answer.get("servicer_userid", "")

    async def text(self, kfid: str, customer: str = "wmC1", **body: Any) -> dict[str, Any]:
        message = {"touser": customer, "open_kfid": kfid, "msgtype": "text", "text": {"content": "hi"}, **body}
        return await self.post("send_msg", **message)

    def write(self, kfid: str, customer: str = "wmC1", content: str = "你好", **fields: Any) -> str:
        return self.desk.write(kfid, customer, self.now_s, content, **fields)

    def wake_up(self) -> dict[str, str]:
        """The newest kf_msg_or_event."""
        (last,) = [event for event in self.told if event["Event"] == ["kf_msg_or_event"]][-1:]
        return {name: values[0] for name, values in last.items()}

    async def rows(self, kfid: str, **body: Any) -> list[dict[str, Any]]:
        """All rows of the log that can be seen."""
        found, cursor = [], ""
        while True:
            answer = await self.ok("sync_msg", open_kfid=kfid, cursor=cursor, **body)
            found += answer["msg_list"]
            cursor = answer["next_cursor"]
            if not answer["has_more"]:
                return found

    async def events(self, kfid: str, kind: str) -> list[dict[str, Any]]:
        return [row["event"] for row in await self.rows(kfid) if row.get("event", {}).get("event_type") == kind]


@pytest.fixture
def kf(wecom) -> Kf:
    kf = Kf(wecom)
    kf.rule()

    def hear(callback: Callback) -> None:
        event: dict[str, list[str]] = {}
        for element in ET.fromstring(callback.content):
            event.setdefault(element.tag, []).append(element.text or "")
        kf.told.append(event)

    wecom.world._send = hear
    return kf
