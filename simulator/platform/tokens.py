"""Access tokens: one per corp and app, the same within its validity, then 42001; an unknown one is 40014.

Fact sheet 3.1. ``now`` is the platform's clock in seconds.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from simulator.apps import App
from simulator.platform.errors import ApiError


@dataclass(frozen=True, slots=True)
class _Token:
    app: App
    text: str
    expires: float


class Tokens:
    """Issues and checks tokens."""

    def __init__(self, apps: Iterable[App], lifetime_s: int) -> None:
        self._apps: dict[str, list[App]] = {}
        for app in apps:
            self._apps.setdefault(app.corp_id, []).append(app)
        self._lifetime_s = lifetime_s
        self._current: dict[tuple[str, str], _Token] = {}
        self._known: dict[str, _Token] = {}

    def issue(self, corp_id: str, secret: str, now: float) -> tuple[str, int]:
        """The app's token and the seconds it is still valid. Raises ApiError 40013 or 40001."""
        if corp_id not in self._apps:
            raise ApiError(40013)
        given = secret.encode("utf-8", "surrogatepass")
        # Every secret is compared, so that the time taken says nothing about which one was near.
        matching = [app for app in self._apps[corp_id] if hmac.compare_digest(app.secret.encode(), given)]
        if not matching:
            raise ApiError(40001)
        app = matching[0]
        key = (corp_id, app.agent_id)
        token = self._current.get(key)
        if token is None or token.expires - now < 1:
            self._forget(now)
            token = _Token(app, secrets.token_urlsafe(160), now + self._lifetime_s)
            self._current[key] = self._known[token.text] = token
        return token.text, int(token.expires - now)

    def app_of(self, token: str | None, now: float) -> App:
        """Whose token it is. Raises ApiError 41001 (missing), 40014 (unknown or withdrawn) or 42001 (expired)."""
        if not token:
            raise ApiError(41001)
        known = self._known.get(token)
        if known is None:
            raise ApiError(40014)
        if now >= known.expires:
            raise ApiError(42001)
        return known.app

    def withdraw(self, corp_id: str, agent_id: str = "") -> None:
        """Early invalidation by the platform: the tokens of the corp, or of one app of it, are unknown from now on."""
        for key, token in list(self._current.items()):
            if key[0] == corp_id and agent_id in ("", key[1]):
                del self._current[key]
                self._known.pop(token.text, None)

    def _forget(self, now: float) -> None:
        """Tokens that expired long ago are no longer told from unknown ones."""
        old = [text for text, token in self._known.items() if now - token.expires > _REMEMBERED_S]
        for text in old:
            del self._known[text]


_REMEMBERED_S = 86_400
