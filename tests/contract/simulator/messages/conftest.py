"""The plain world with customers for everybody, a group, and files to send."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from simulator.world.corp import Touch
from simulator.world.groups import Groups
from simulator.world.notes import Notes
from simulator.world.tags import TagBook

START_S = 1_760_000_000
"""Thursday, 9 October 2025, 16:53:20 in Beijing."""
CUSTOMERS = [f"wmC{number}" for number in range(1, 31)]

PROMPT = {"habits": {"never_share": 0.0, "median_s": 600, "spread": 0.0}}
"""Everybody confirms ten minutes after a task arrives."""
IDLE = {"habits": {"never_share": 1.0, "reminded_share": 1.0}}
"""Nobody confirms before a reminder, then everybody does."""

OVER_SCALE = {
    "scale": {
        "buys_itself": False,
        "prices": [{"since_s": 0, "free": 2_000, "tiers": []}, {"since_s": START_S + 90, "free": 3, "tiers": []}],
    }
}
"""From the ninetieth second on the corp has more customers than it has paid for."""


@dataclass
class Shop:
    """The rig with ten customers for s1, ten for s2, and ten who know both; wmC30 deleted s1 again."""

    wecom: Any

    @property
    def world(self) -> Any:
        return self.wecom.world

    @property
    def now_s(self) -> int:
        return self.wecom.clock.ms // 1000

    def touches(self, kind: str) -> list[Touch]:
        return [touch for touch in self.world.touches if touch.kind == kind]

    def advance(self, seconds: float) -> None:
        """Moves the clock; whoever calls after hours needs another token."""
        self.wecom.advance(seconds)
        self.wecom._token = ""

    async def call(self, name: str, **body: Any) -> dict[str, Any]:
        """A POST below ``externalcontact/``."""
        return await self.wecom.post(f"externalcontact/{name}", body)

    async def code(self, name: str, **body: Any) -> int:
        return (await self.call(name, **body))["errcode"]

    async def send(self, **body: Any) -> str:
        """A mass message; its msgid, once its tasks can be read."""
        answer = await self.call("add_msg_template", **{"text": {"content": "新品到店"}, **body})
        assert answer["errcode"] == 0, answer
        self.advance(60)
        return answer["msgid"]

    async def results(self, msgid: str, userid: str) -> dict[str, int]:
        answer = await self.call("get_groupmsg_send_result", msgid=msgid, userid=userid, limit=1_000)
        assert answer["errcode"] == 0, answer
        return {row.get("external_userid") or row["chat_id"]: row["status"] for row in answer["send_list"]}

    async def upload(self, path: str = "media/upload", content: bytes = b"picture", **query: str) -> dict[str, Any]:
        """The answer to a multipart upload."""
        query = {"access_token": await self.wecom.token(), **query}
        files = {"media": ("图 1.png", content, "image/png")}
        return (await self.wecom.client.post(f"/cgi-bin/{path}", params=query, files=files)).json()

    async def media_id(self, kind: str = "image", content: bytes = b"picture") -> str:
        return (await self.upload(content=content, type=kind))["media_id"]

    async def moment_media_id(self, kind: str = "image") -> str:
        answer = await self.upload("media/upload_attachment", media_type=kind, attachment_type="1")
        return answer["media_id"]

    def tag(self, names: Iterable[str], marks: dict[str, list[str]], group: str = "口味") -> dict[str, str]:
        """A group of tags, put on customers of s1; id by name."""
        _, made = self.world.of(TagBook).add(self.now_s, [(name, 0) for name in names], app="7", group_name=group)
        ids = {tag.name: tag.id for tag in made}
        for customer, has in marks.items():
            self.world.of(Notes).mark("s1", customer, [ids[name] for name in has], [])
        return ids

    def group(self, owner: str = "s1", customers: Iterable[str] = ("wmC1", "wmC2")) -> str:
        return self.world.of(Groups).create(owner, ["s3", *customers], self.now_s, name="福利群")


@pytest.fixture
async def shop(wecom) -> Shop:
    wecom.world.people.known = frozenset(CUSTOMERS)
    for number, customer in enumerate(CUSTOMERS):
        for staff in [["s1"], ["s2"], ["s1", "s2"]][number // 10]:
            wecom.happen("add", staff=staff, customer=customer, at_s=number if staff == "s1" else number + 40)
    wecom.happen("delete_by_customer", staff="s1", customer="wmC30", at_s=80)
    wecom.advance(100)
    return Shop(wecom)
