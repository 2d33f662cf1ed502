"""What an endpoint is: a path, a method and a function of one authorised call; and the cursors they page with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from simulator.apps import App
from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld

T = TypeVar("T")
Answer = dict[str, Any]
"""The payload beside errcode and errmsg."""


@dataclass(frozen=True, slots=True)
class File:
    """An answer that is no JSON: what a download gives."""

    content: bytes
    content_type: str
    filename: str


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised call."""

    app: App
    corp: CorpWorld
    query: Mapping[str, str]
    body: dict[str, Any]
    now_ms: int
    """Business time, epoch ms."""
    clock_s: float
    """The platform's own clock in seconds: what tokens, limits and cursors live by."""
    cursor_ttl_s: int = 14_400

    @property
    def now_s(self) -> int:
        """Business time, epoch seconds."""
        return self.now_ms // 1000

    def write_cursor(self, scope: str, position: Any, *, ttl_s: int = 0) -> str:
        """An opaque cursor for ``position`` (JSON), good for this app, ``scope`` and some hours."""
        payload = json.dumps([int(self.clock_s) + (ttl_s or self.cursor_ttl_s), position]).encode()
        return base64.urlsafe_b64encode(self._seal(payload, scope) + payload).decode().rstrip("=")

    def read_cursor(self, scope: str, cursor: str) -> Any:
        """The position. Raises ApiError 50100 for a cursor that is forged, of another question, or too old."""
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raise ApiError(50100) from None
        seal, payload = raw[:16], raw[16:]
        if not hmac.compare_digest(seal, self._seal(payload, scope)):
            raise ApiError(50100)
        expires, position = json.loads(payload)
        if self.clock_s > expires:
            raise ApiError(50100)
        return position

    def page(self, scope: str, items: Sequence[T], cursor: str, limit: int) -> tuple[Sequence[T], str]:
        """``limit`` of the items behind ``cursor`` (empty: from the first), and the next cursor, empty at the end."""
        start = self.read_cursor(scope, cursor) if cursor else 0
        end = start + limit
        return items[start:end], self.write_cursor(scope, end) if end < len(items) else ""

    def _seal(self, payload: bytes, scope: str) -> bytes:
        key = hashlib.sha256(f"cursor|{self.corp.seed}".encode()).digest()
        of = f"{self.corp.corp_id}|{self.app.agent_id}|{scope}".encode("utf-8", "surrogatepass")
        return hmac.digest(key, of + b"\x00" + payload, "sha256")[:16]


Handler = Callable[[Call], Answer | File]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path below ``/cgi-bin/``."""

    path: str
    method: Literal["GET", "POST"]
    handler: Handler
    empties: Mapping[str, Any]
    """Payload fields that an error body still carries (fact sheet 3)."""
    record: Callable[[Call], str] | None
    """What the call writes to: a second writer while it runs gets 45035 (fact sheet 4.2)."""
    concurrency: int
    """Calls of a corp at once; 0: as many as the platform's rule says."""
    upload: bool = False
    """The body is no JSON: the handler finds ``content_type`` and ``bytes`` in ``Call.body``, whatever was sent."""
    body_limit: int = 0
    """Longer bodies get 40206; 0: the setting."""


@dataclass(frozen=True, slots=True)
class Api:
    """A family of endpoints."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)

    def get(self, path: str, **empties: Any) -> Callable[[Handler], Handler]:
        """Declares a GET; ``empties``: the fields its error body carries."""
        return self._declare(path, lambda handler: Endpoint(path, "GET", handler, empties, None, 0))

    def post(
        self,
        path: str,
        *,
        record: Callable[[Call], str] | None = None,
        concurrency: int = 0,
        upload: bool = False,
        body_limit: int = 0,
        **empties: Any,
    ) -> Callable[[Handler], Handler]:
        """Declares a POST; ``empties``: the fields its error body carries."""
        return self._declare(
            path, lambda handler: Endpoint(path, "POST", handler, empties, record, concurrency, upload, body_limit)
        )

    def _declare(self, path: str, endpoint: Callable[[Handler], Endpoint]) -> Callable[[Handler], Handler]:
        def declare(handler: Handler) -> Handler:
            if path in self.endpoints:
                raise ValueError(f"endpoint {path} is declared twice")
            self.endpoints[path] = endpoint(handler)
            return handler

        return declare
