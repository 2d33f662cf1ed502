"""Every call received, in order of answers: the newest in memory, all of them in a file when one is named.

A line of the file says all that a proof of limits needs: who called from where, when the call arrived and when it was
answered, whom it was about, and a digest that tells two requests with one content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

_FLUSH_MS = 1_000
_BUFFER_BYTES = 1 << 20
_DIGEST_BYTES = 8


class RecordedCall(msgspec.Struct, frozen=True):
    """One call as it was answered. ``time_ms``: wall time of the arrival; ``business_ms``: what the clock said."""

    time_ms: int
    business_ms: int
    endpoint: str
    corp_id: str
    agent_id: str
    errcode: int


class CallDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the file says of a call besides."""

    ip: str
    """Source address."""
    answered_ms: int
    """Business time of the answer, epoch ms."""
    lost: bool = False
    """The call had its effect and its answer was not sent."""
    staff_id: str = ""
    """Whom the request names as the member of staff that acts."""
    persons: list[str] = msgspec.field(default_factory=list)
    """Customers, group chats or members of staff that the request reaches, as often as it names them."""
    message_id: str = ""
    """``msgid`` and the like: what the request is about, or what its answer says was made."""
    code: str = ""
    """The welcome code it uses up."""
    digest: str = ""
    """Of the request without its token: the same for the same content."""


_STAFF = ("userid", "sender", "handover_userid")
_PERSONS = ("external_userid", "chat_id_list", "touser")
_MESSAGES = ("msgid", "moment_id", "jobid", "config_id")


def detail_of(
    asked: Mapping[str, Any], answered: Mapping[str, Any], *, ip: str, answered_ms: int, lost: bool
) -> CallDetail:
    """``asked``: parameters and body of the request, of whatever types a caller sent; ``answered``: the answer's."""
    return CallDetail(
        ip=ip,
        answered_ms=answered_ms,
        lost=lost,
        staff_id=next((text for name in _STAFF if (text := _text(asked.get(name)))), ""),
        persons=[person for name in _PERSONS for person in _texts(asked.get(name))],
        message_id=next(
            (text for source in (asked, answered) for n in _MESSAGES if (text := _text(source.get(n)))), ""
        ),
        code=_text(asked.get("welcome_code")),
        digest=_digest(asked),
    )


def _text(value: Any) -> str:
    # Half of a surrogate pair is no text, and a caller may well send one.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    parts = value.split("|") if isinstance(value, str) else value  # touser joins them so
    return [text for part in parts if (text := _text(part))] if isinstance(parts, list) else []


def _digest(asked: Mapping[str, Any]) -> str:
    content = {name: value for name, value in asked.items() if name != "access_token" and not isinstance(value, bytes)}
    # The standard library takes every number and string that it has read.
    whole = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(whole.encode(), digest_size=_DIGEST_BYTES).hexdigest()


class CallLog:
    """Calls by their number, from 0; only the newest ``kept`` can be read again."""

    def __init__(self, kept: int, path: Path | None = None) -> None:
        """``path``: calls are appended, one JSON object a line, at most a second late. Raises OSError."""
        self._newest: deque[RecordedCall] = deque(maxlen=kept)
        self._file: IO[bytes] | None = None
        self._encoder = msgspec.json.Encoder()
        self._flushed_ms = 0
        self.total = 0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=_BUFFER_BYTES)

    @property
    def detailed(self) -> bool:
        """Whether anybody is to read a call's detail."""
        return self._file is not None

    def append(self, call: RecordedCall, detail: CallDetail | None = None) -> None:
        """Takes one call. Memory keeps no details: a mass message names ten thousand people."""
        self._newest.append(call)
        self.total += 1
        if self._file is not None:
            line = self._encoder.encode(call)
            if detail is not None:
                line = line[:-1] + b"," + self._encoder.encode(detail)[1:]
            self._file.write(line + b"\n")
            if call.time_ms - self._flushed_ms >= _FLUSH_MS:
                self._file.flush()
                self._flushed_ms = call.time_ms

    def since(self, number: int) -> Iterator[tuple[int, RecordedCall]]:
        """(number, call) from ``number`` on, or from the oldest there still is."""
        oldest = self.total - len(self._newest)
        skipped = max(0, number - oldest)
        return zip(itertools.count(oldest + skipped), itertools.islice(self._newest, skipped, None), strict=False)

    def close(self) -> None:
        """Writes what is not in the file yet."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __iter__(self) -> Iterator[RecordedCall]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)
