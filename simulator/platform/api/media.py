"""Uploads and downloads of media (fact sheet 3.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from simulator.platform.endpoint import Answer, Api, Call, File
from simulator.platform.errors import ApiError
from simulator.world.media import ALBUM, MESSAGE, MOMENT, MediaBook, pixels_of, seconds_of

API = Api()

_BODY_LIMIT = 32 << 20
"""Of the transport; the kinds' own limits are rules."""
_SCENES = {"1": MOMENT, "2": ALBUM}


@API.post("media/upload", upload=True, body_limit=_BODY_LIMIT)
def upload(call: Call) -> Answer:
    """A file for messages, good for three days. ``created_at`` is a string, as the platform has it here."""
    book = call.corp.of(MediaBook)
    kind = call.query.get("type", "")
    if kind not in book.rules.message_bytes:
        raise ApiError(40004)
    sent = sent_file(call)
    if len(sent.content) > book.rules.message_bytes[kind]:
        raise ApiError(45001)
    media = book.add(kind, MESSAGE, sent.content, sent.content_type, sent.filename, call.now_s)
    return {"type": kind, "media_id": media.media_id, "created_at": str(media.created_s)}


@API.post("media/uploadimg", upload=True, body_limit=_BODY_LIMIT, url="")
def uploadimg(call: Call) -> Answer:
    """An image with an address that stays. What is refused does not count."""
    book = call.corp.of(MediaBook)
    sent = sent_file(call)
    if len(sent.content) > book.rules.image_bytes:
        raise ApiError(45001)
    if not book.may_add_image(call.now_s):
        raise ApiError(45009)
    return {"url": book.add_image(sent.content)}


@API.post("media/upload_attachment", upload=True, body_limit=_BODY_LIMIT)
def upload_attachment(call: Call) -> Answer:
    """A file for moments (1) or the product album (2), good for three days.

    The sheet has the codes for resolution and duration; a file that tells neither is taken as it is.
    """
    book = call.corp.of(MediaBook)
    rules = book.rules
    kind, scene = call.query.get("media_type", ""), _SCENES.get(call.query.get("attachment_type", ""))
    if kind not in ("image", "video", "file"):
        raise ApiError(40004)
    if scene is None:
        raise ApiError(40035)
    sent = sent_file(call)
    if len(sent.content) > rules.attachment_bytes:
        raise ApiError(41080)
    if scene == MOMENT and kind == "image":
        pixels = pixels_of(sent.content)
        if pixels is not None and any(has > may for has, may in zip(pixels, rules.moment_image_pixels, strict=True)):
            raise ApiError(41081)
    if scene == MOMENT and kind == "video" and (seconds_of(sent.content) or 0) > rules.moment_video_s:
        raise ApiError(41082)
    media = book.add(kind, scene, sent.content, sent.content_type, sent.filename, call.now_s)
    return {"type": kind, "media_id": media.media_id, "created_at": media.created_s}


@API.get("media/get")
def get(call: Call) -> File:
    """The file itself; too old or never uploaded: 40007."""
    media = call.corp.of(MediaBook).get(call.query.get("media_id", ""), call.now_s)
    if media is None:
        raise ApiError(40007)
    return File(media.content, media.content_type, media.filename)


@dataclass(frozen=True, slots=True)
class Sent:
    """The part of a form that was uploaded."""

    content: bytes
    content_type: str
    filename: str


def sent_file(call: Call) -> Sent:
    """The part named ``media`` that has a file name. Raises ApiError 41005 when there is none, or it is empty."""
    head = Message()
    head["content-type"] = call.body["content_type"]
    boundary = head.get_boundary() if head.get_content_type() == "multipart/form-data" else None
    if not boundary:
        raise ApiError(41005)
    mark = b"\r\n--" + boundary.encode("latin-1", "replace")
    # A line break belongs to the mark behind it, so contents of any bytes come out as they were sent.
    for part in (b"\r\n" + call.body["bytes"]).split(mark)[1:]:
        if part.startswith(b"--"):
            break
        about, blank, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not blank:
            continue
        fields = HeaderParser().parsestr(about.decode("utf-8", "replace") + "\r\n\r\n")
        name = fields.get_param("name", header="content-disposition")
        filename = fields.get_filename()
        if name == "media" and filename and content:
            kind = fields.get_content_type() if "content-type" in fields else "application/octet-stream"
            return Sent(content, kind, re.sub(r"[\x00-\x1f/\\]", "_", filename))
    raise ApiError(41005)
