"""Templates of the welcome that customers get in a group (fact sheet 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.platform import fields
from simulator.platform.api.welcome import check_message
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.opaque import opaque_id

API = Api()

_KINDS = ("image", "link", "miniprogram", "file", "video")
"""One of them goes with the text; of several the first in this order counts."""


class GroupWelcomeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``group_welcome`` of the rules; the platform documents a limit (41055), the sheet no number."""

    most: int = 100
    """Templates of a corp."""
    text_bytes: int = 3_000


@dataclass(slots=True)
class GroupWelcome:
    """One template: what was given, as it was given."""

    template_id: str
    agent_id: str
    """Whose it is: other apps cannot change it (41058)."""
    content: dict[str, Any]
    notify: bool
    """Whether group owners are told of it."""


class GroupWelcomes:
    """All templates of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("group_welcome", GroupWelcomeRules)
        self.templates: dict[str, GroupWelcome] = {}
        self._corp = corp
        self._made = 0

    def add(self, agent_id: str, content: dict[str, Any], notify: bool) -> GroupWelcome:
        """Keeps one."""
        template = GroupWelcome(opaque_id(self._corp, "msg", "group", self._made), agent_id, content, notify)
        self._made += 1
        self.templates[template.template_id] = template
        return template


@API.post("externalcontact/group_welcome_template/add", template_id="")
def add(call: Call) -> Answer:
    """Makes a template; owners choose it for their groups in the client."""
    content = _content(call)
    notify = fields.flag(call.body, "notify", default=True)
    agent_id = _agent(call)
    book = call.corp.of(GroupWelcomes)
    if len(book.templates) >= book.rules.most:
        raise ApiError(41055)
    return {"template_id": book.add(agent_id, content, notify).template_id}


@API.post("externalcontact/group_welcome_template/edit")
def edit(call: Call) -> Answer:
    """Replaces all of it."""
    template = _of_this_app(call)
    template.content = _content(call)
    return {}


@API.post("externalcontact/group_welcome_template/get")
def get(call: Call) -> Answer:
    """The template as it was given; apps may read those of others."""
    return dict(_template(call).content)


@API.post("externalcontact/group_welcome_template/del")
def delete(call: Call) -> Answer:
    """It is gone for whoever had chosen it."""
    template = _of_this_app(call)
    del call.corp.of(GroupWelcomes).templates[template.template_id]
    return {}


def _template(call: Call) -> GroupWelcome:
    """Unknown ids: 40035, the platform documents no code."""
    template_id = fields.text(call.body, "template_id", required=True)
    template = call.corp.of(GroupWelcomes).templates.get(template_id)
    if template is None:
        raise ApiError(40035)
    return template


def _of_this_app(call: Call) -> GroupWelcome:
    template = _template(call)
    if template.agent_id != _agent(call):
        raise ApiError(41058)
    return template


def _agent(call: Call) -> str:
    """``agentid``, which must be the caller's own (301002): with a corp's own apps it may be left out."""
    agent = call.body.get("agentid")
    if agent is None:
        return call.app.agent_id
    if str(fields.whole(call.body, "agentid")) != call.app.agent_id:
        raise ApiError(301002)
    return call.app.agent_id


def _content(call: Call) -> dict[str, Any]:
    """Text (with ``%NICKNAME%`` wherever the newcomer's name is to stand) and one attachment, at least one of them."""
    body = call.body
    content: dict[str, Any] = {}
    message: dict[str, Any] = {}
    if body.get("text") is not None and fields.text(fields.obj(body, "text"), "content"):
        content["text"] = message["text"] = {"content": body["text"]["content"]}
    kind = next((kind for kind in _KINDS if body.get(kind) is not None), "")
    if kind:
        content[kind] = fields.obj(body, kind)
        message["attachments"] = [{"msgtype": kind, kind: content[kind]}]
    check_message(call, message, max_bytes=call.corp.of(GroupWelcomes).rules.text_bytes)
    return content
