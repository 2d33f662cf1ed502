"""The welcome message (fact sheet 3.4), and the checks of text and attachments that all messages share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld, Touch
from simulator.world.mass import SHOWN_CHARS
from simulator.world.media import MESSAGE, MediaBook
from simulator.world.people import ACTIVE
from simulator.world.relations import ContactChange
from simulator.world.roster import Roster

API = Api()

_MAX_TEXT_BYTES = 4_000
_MAX_ATTACHMENTS = 9
_SHORT_TEXTS = {("link", "title"): 128, ("link", "desc"): 512, ("miniprogram", "title"): 64}
_REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    # Each tuple: one of these has to be there.
    "image": (("media_id", "pic_url"),),
    "link": (("title",), ("url",)),
    "miniprogram": (("title",), ("pic_media_id",), ("appid",), ("page",)),
    "video": (("media_id",),),
    "file": (("media_id",),),
}


class WelcomeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``welcome`` of the rules."""

    archive_staff: frozenset[str] = frozenset()
    """Members whose chats are archived: a customer who has not agreed to that gets no welcome of theirs (41053)."""


class ContentRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``content`` of the rules: what the platform's content security refuses (40201)."""

    forbidden: tuple[str, ...] = ("代开发票", "刷单返利", "网络赌博", "高利贷", "迷药", "办假证", "枪支弹药")
    """Phrases; the platform's own list is not public."""


class Consents:
    """Who has agreed that chats with a staff member are archived."""

    def __init__(self, corp: CorpWorld) -> None:
        self.given: set[tuple[str, str]] = set()
        """(staff_id, customer_id)"""
        for change in corp.changes:
            self._changed(change)
        corp.happened.append(self._changed)

    def _changed(self, event: ContactChange) -> None:
        if event.change == "archive_consent":
            self.given.add((event.staff_id, event.customer_id))


@API.post("externalcontact/send_welcome_msg")
def send_welcome_msg(call: Call) -> Answer:
    """Delivers a welcome. A body that is refused does not use the code up, nor does a member who cannot send.

    The platform documents no code for members who have not logged in for long: here 40205, as with transfers.
    """
    code = fields.text(call.body, "welcome_code", required=True)
    try:
        return _deliver(call, code)
    except ApiError as error:
        call.corp.welcomes.refuse(code, error.errcode)
        raise


def _deliver(call: Call, code: str) -> Answer:
    text = check_message(call, call.body)

    def check(event: ContactChange) -> None:
        member = call.corp.people.staff.get(event.staff_id)
        if member is None or member.status != ACTIVE:
            raise ApiError(41054)
        if not call.corp.of(Roster).logged_in(event.staff_id, call.now_s):
            raise ApiError(40205)
        archived = event.staff_id in call.corp.rules_of("welcome", WelcomeRules).archive_staff
        if archived and (event.staff_id, event.customer_id) not in call.corp.of(Consents).given:
            raise ApiError(41053)

    event = call.corp.welcomes.use(code, call.app.agent_id, call.now_ms, check)
    call.corp.touch(Touch(call.now_s, "welcome", event.staff_id, event.customer_id, code, text[:SHOWN_CHARS]))
    return {}


ALWAYS = (Consents,)


def check_message(call: Call, body: fields.Body, *, max_bytes: int = _MAX_TEXT_BYTES) -> str:
    """A message as :func:`check_content` has it, with media that exist and nothing forbidden; returns its text."""
    check_content(body, max_bytes=max_bytes)
    text = fields.text(fields.obj(body, "text"), "content")
    said = [text]
    for attachment in fields.objects(body, "attachments"):
        kind = fields.text(attachment, "msgtype")
        content = fields.obj(attachment, kind)
        said += [fields.text(content, name) for name in ("title", "desc")]
        if kind == "miniprogram":
            check_media(call, fields.text(content, "pic_media_id"), "image", MESSAGE)
        elif kind != "link" and (media_id := fields.text(content, "media_id")):
            check_media(call, media_id, kind, MESSAGE)
    check_words(call, said)
    return text


def check_media(call: Call, media_id: str, kind: str, scene: str) -> None:
    """A media_id that is alive, of this kind and for this scene: else 40007, of another scene 41072."""
    media = call.corp.of(MediaBook).get(media_id, call.now_s)
    if media is None:
        raise ApiError(40007)
    if media.scene != scene:
        raise ApiError(41072)
    if media.kind != kind:
        raise ApiError(40007)


def check_words(call: Call, texts: Iterable[str]) -> None:
    """Raises ApiError 40201 for a forbidden phrase."""
    forbidden = call.corp.rules_of("content", ContentRules).forbidden
    if any(phrase in text for text in texts for phrase in forbidden):
        raise ApiError(40201)


def check_content(body: fields.Body, *, max_bytes: int = _MAX_TEXT_BYTES) -> None:
    """Text of at most ``max_bytes`` and at most nine attachments, at least one of the two."""
    text = body.get("text")
    if text is not None:
        fields.text(fields.as_object(text), "content", required=True, max_bytes=max_bytes, too_long=45002)
    attachments = body.get("attachments")
    if attachments is None:
        if text is None:
            raise ApiError(41089)
        return
    found = fields.objects(body, "attachments", most=_MAX_ATTACHMENTS, too_many=41064)
    if not found and text is None:
        raise ApiError(41088)
    for attachment in found:
        _check_attachment(attachment)


def _check_attachment(attachment: dict[str, Any]) -> None:
    kind = fields.text(attachment, "msgtype", required=True)
    if kind not in _REQUIRED:
        raise ApiError(41065)
    content = fields.obj(attachment, kind)
    for alternatives in _REQUIRED[kind]:
        if not any(fields.text(content, name) for name in alternatives):
            raise ApiError(40058)
    for (of_kind, name), limit in _SHORT_TEXTS.items():
        if of_kind == kind:
            fields.text(content, name, max_bytes=limit, too_long=45002)
