"""Files an app has uploaded: what they are for, how long they live, and how many a corp may bring (fact sheet 3.4).

A temporary file lives three days and is good for one scene: messages, moments or the product album. An image of
``uploadimg`` is an address that stays. Pure: the caller passes the time in.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from dataclasses import dataclass, field

import msgspec

from simulator.world.corp import CorpWorld
from simulator.world.days import day_of, month_of

MESSAGE, MOMENT, ALBUM = "message", "moment", "album"
"""Scenes."""


class MediaRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``media`` of the rules: bytes, seconds, pixels and counts.

    The sizes of ``media/upload`` and of ``uploadimg`` are the field's; the sheet names those of moments only.
    """

    life_s: int = 259_200
    message_bytes: dict[str, int] = msgspec.field(
        default_factory=lambda: {"image": 10 << 20, "voice": 2 << 20, "video": 10 << 20, "file": 20 << 20}
    )
    attachment_bytes: int = 10 << 20
    """Of ``upload_attachment``, every kind."""
    moment_video_s: float = 30.0
    moment_image_pixels: tuple[int, int] = (1440, 1080)
    """Longer and shorter side."""
    image_bytes: int = 2 << 20
    """Of ``uploadimg``."""
    images_a_day: int = 1_000
    images_a_month: int = 3_000
    month_block_s: int = 30 * 86_400
    """How long the month's limit refuses (fact sheet 4.1: a block is as long as its window, a month's 30 days)."""


@dataclass(frozen=True, slots=True)
class Media:
    """A temporary file. Times in epoch seconds."""

    media_id: str
    kind: str
    """``image``, ``voice``, ``video`` or ``file``."""
    scene: str
    content: bytes = field(repr=False)
    content_type: str
    filename: str
    created_s: int
    expires_s: int


class MediaBook:
    """All uploads of one corp; its apps share them."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("media", MediaRules)
        self._salt = f"{corp.seed}|{corp.corp_id}"
        self._files: dict[str, Media] = {}
        self._by_age: deque[Media] = deque()
        self._serial = 0
        self.images: dict[str, int] = {}
        """Address of every image of ``uploadimg`` → its bytes."""
        self._day = self._month = -1
        self._images_today = self._images_this_month = 0
        self._blocked_until_s = 0

    def add(self, kind: str, scene: str, content: bytes, content_type: str, filename: str, now_s: int) -> Media:
        """Keeps a file for the rule's life; forgets those whose life is over, so that memory is bounded by it."""
        while self._by_age and self._by_age[0].expires_s <= now_s:
            self._files.pop(self._by_age.popleft().media_id, None)
        expires_s = now_s + self.rules.life_s
        media = Media(self._name("media"), kind, scene, content, content_type, filename, now_s, expires_s)
        self._files[media.media_id] = media
        self._by_age.append(media)
        return media

    def get(self, media_id: str, now_s: int) -> Media | None:
        """A file that is still alive."""
        media = self._files.get(media_id)
        return media if media is not None and now_s < media.expires_s else None

    def may_add_image(self, now_s: int) -> bool:
        """Counts one image; False when it is past the day's limit, or past the month's, which blocks for 30 days."""
        day, month = day_of(now_s), month_of(now_s)
        if day != self._day:
            self._day, self._images_today = day, 0
        if month != self._month:
            self._month, self._images_this_month = month, 0
        if now_s < self._blocked_until_s or self._images_today >= self.rules.images_a_day:
            return False
        if self._images_this_month >= self.rules.images_a_month:
            self._blocked_until_s = now_s + self.rules.month_block_s
            return False
        self._images_today += 1
        self._images_this_month += 1
        return True

    def add_image(self, content: bytes) -> str:
        """Its address."""
        url = f"https://wework.qpic.example/wwpic/{self._name('image')}/0"
        self.images[url] = len(content)
        return url

    def _name(self, of: str) -> str:
        self._serial += 1
        return hashlib.blake2b(f"{self._salt}|{of}|{self._serial}".encode(), digest_size=24).hexdigest()


def seconds_of(video: bytes) -> float | None:
    """How long an MP4 plays, from the header of its movie; None when there is none."""
    at = video.find(b"mvhd") + 4
    if at < 4 or len(video) < at + 32:
        return None
    if video[at] == 0:
        scale, length = struct.unpack_from(">II", video, at + 12)
    else:
        scale, length = struct.unpack_from(">IQ", video, at + 20)
    return length / scale if scale else None


def pixels_of(image: bytes) -> tuple[int, int] | None:
    """Longer and shorter side of a PNG or JPEG; None for anything else."""
    size = _png(image) if image.startswith(b"\x89PNG\r\n\x1a\n") else _jpeg(image)
    return (max(size), min(size)) if size is not None else None


def _png(image: bytes) -> tuple[int, int] | None:
    return struct.unpack_from(">II", image, 16) if len(image) >= 24 else None


def _jpeg(image: bytes) -> tuple[int, int] | None:
    at = 2
    while image.startswith(b"\xff\xd8") and at + 9 <= len(image) and image[at] == 0xFF:
        marker, length = image[at + 1], int.from_bytes(image[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", image, at + 5)
            return width, height
        at += 2 + max(length, 2)
    return None


_NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers among the frames' that begin tables."""
