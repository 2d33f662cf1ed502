"""The welcome message (fact sheet 3.4), and the checks of text and attachments that all messages share."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError

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


@API.post("externalcontact/send_welcome_msg")
def send_welcome_msg(call: Call) -> Answer:
    """Delivers a welcome. A body that is refused does not use the code up."""
    code = fields.text(call.body, "welcome_code", required=True)
    check_content(call.body)
    call.corp.welcomes.use(code, call.app.agent_id, call.now_ms)
    return {}


def check_content(body: fields.Body) -> None:
    """Text of at most 4000 bytes and at most nine attachments, at least one of the two."""
    text = body.get("text")
    if text is not None:
        fields.text(fields.as_object(text), "content", required=True, max_bytes=_MAX_TEXT_BYTES, too_long=45002)
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
