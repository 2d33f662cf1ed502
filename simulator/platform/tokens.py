"""Access tokens: one per corp, the same within its validity, then 42001; an unknown one is 40014 (fact sheet 3.1)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.platform.errors import ApiError
from siyu.ops.corps import Corp


@dataclass(frozen=True, slots=True)
class _Token:
    corp_id: str
    text: str
    expires: float


class Tokens:
    """Issues and checks tokens. ``now`` is monotonic wall time in seconds."""

    def __init__(self, corps: Mapping[str, Corp], lifetime_s: int) -> None:
        self._corps = corps
        self._lifetime_s = lifetime_s
        self._current: dict[str, _Token] = {}
        self._known: dict[str, _Token] = {}

    def issue(self, corp_id: str, secret: str, now: float) -> tuple[str, int]:
        """The corp's token and the seconds it is still valid. Raises ApiError 40013 or 40001."""
        corp = self._corps.get(corp_id)
        if corp is None:
            raise ApiError(40013)
        if not hmac.compare_digest(corp.secret.encode(), secret.encode("utf-8", "surrogatepass")):
            raise ApiError(40001)
        token = self._current.get(corp_id)
        if token is None or token.expires - now < 1:
            token = _Token(corp_id, secrets.token_urlsafe(160), now + self._lifetime_s)
            self._current[corp_id] = self._known[token.text] = token
        return token.text, int(token.expires - now)

    def corp_of(self, token: str | None, now: float) -> str:
        """Whose token it is. Raises ApiError 41001 (missing), 40014 (unknown or withdrawn) or 42001 (expired)."""
        if not token:
            raise ApiError(41001)
        known = self._known.get(token)
        if known is None:
            raise ApiError(40014)
        if now >= known.expires:
            raise ApiError(42001)
        return known.corp_id

    def withdraw(self, corp_id: str) -> None:
        """Early invalidation by the platform: the corp's token is unknown from now on."""
        token = self._current.pop(corp_id, None)
        if token is not None:
            del self._known[token.text]
