"""Access tokens: one owner per corp in the process, shared by all lanes.

However many callers need one, at most one gettoken per corp is under way; a token that WeCom refused is renewed once,
however many callers were refused with it; and a gettoken that fails is repeated ever more slowly, since repeated wrong
secrets get our address banned for an hour.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from siyu.ops.corps import Corp
from siyu.wecom.client import Answer, Result
from siyu.wecom.endpoints import GETTOKEN
from siyu.wecom.errors import ErrorTable

_MAX_TOKEN_BYTES = 512
_EARLY_SHARE = 0.1
"""Of the lifetime: renewed that early, while the old one still works."""
_FRESH_SECONDS = 1.0
_TRANSIENT_BACKOFF = (0.5, 30.0)
_REFUSED_BACKOFF = (30.0, 600.0)
"""Seconds, first and longest, doubled in between. Bans begin at some 2000 failures an hour; this makes at most 14."""

Fetch = Callable[[Corp], Awaitable[Result]]
"""One gettoken under the limiter."""


class TokenUnavailable(Exception):
    """There is no token now. ``final``: a person has to act; waiting does not help."""

    def __init__(self, errcode: int, *, final: bool, retry_in_seconds: float) -> None:
        super().__init__(f"no access token: errcode {errcode}")
        self.errcode = errcode
        self.final = final
        self.retry_in_seconds = retry_in_seconds


class _Body(msgspec.Struct):
    access_token: str = ""
    expires_in: int = 0


class _Entry:
    def __init__(self) -> None:
        self.token = ""
        self.renewed_at = float("-inf")
        self.renew_at = 0.0
        self.expires_at = 0.0
        self.renewal: asyncio.Task[None] | None = None
        self.failures = 0
        self.failure: TokenUnavailable | None = None
        self.not_before = float("-inf")


class Tokens:
    """The owner of every corp's token."""

    def __init__(
        self,
        corps: Mapping[str, Corp],
        fetch: Fetch,
        table: Callable[[], ErrorTable],
        *,
        renewed: Callable[[str, str], None] = lambda corp_id, result: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``renewed(corp_id, result)`` is told of every renewal: ``ok``, ``refused`` or ``no_answer``."""
        self._corps = corps
        self._fetch = fetch
        self._table = table
        self._renewed = renewed
        self._monotonic = monotonic
        self._entries = {corp_id: _Entry() for corp_id in corps}

    async def get(self, corp_id: str) -> str:
        """A token that should work. Raises TokenUnavailable."""
        entry = self._entries[corp_id]
        while True:
            now = self._monotonic()
            usable = entry.token and now < entry.expires_at
            if usable and now < entry.renew_at:
                return entry.token
            if entry.renewal is None and now >= entry.not_before:
                entry.renewal = asyncio.create_task(self._renew(corp_id, entry))
            if usable:
                return entry.token  # the renewal goes on beside the calls
            if entry.renewal is None:
                failure = entry.failure
                assert failure is not None, "only a failure sets not_before"
                raise TokenUnavailable(
                    failure.errcode, final=failure.final, retry_in_seconds=max(0.05, entry.not_before - now)
                )
            # One caller's cancellation must not take the renewal from the others.
            await asyncio.shield(entry.renewal)

    def refused(self, corp_id: str, token: str) -> None:
        """WeCom refused ``token``. Nothing happens when it had been replaced meanwhile."""
        entry = self._entries[corp_id]
        if entry.token != token:
            return
        entry.token = ""
        if self._monotonic() < entry.renewed_at + _FRESH_SECONDS:
            # A server that refuses what it has just handed out must not be asked as fast as it answers.
            entry.failure = TokenUnavailable(0, final=False, retry_in_seconds=_FRESH_SECONDS)
            entry.not_before = entry.renewed_at + _FRESH_SECONDS

    async def close(self) -> None:
        """Ends renewals under way."""
        renewals = [e.renewal for e in self._entries.values() if e.renewal is not None]
        for task in renewals:
            task.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)

    async def _renew(self, corp_id: str, entry: _Entry) -> None:
        asked = self._monotonic()
        try:
            result = await self._fetch(self._corps[corp_id])
        finally:
            entry.renewal = None
        if isinstance(result, Answer) and result.errcode == 0:
            body = _decode(result.body)
            if body is not None:
                entry.token = body.access_token
                # Counted from before the request: a token never lives longer for us than for WeCom.
                entry.expires_at = asked + body.expires_in
                # At least a second, lest a server that keeps answering with a dying token is asked in a loop.
                entry.renew_at = max(asked + body.expires_in * (1 - _EARLY_SHARE), self._monotonic() + 1)
                entry.renewed_at = self._monotonic()
                entry.failures, entry.failure, entry.not_before = 0, None, float("-inf")
                self._renewed(corp_id, "ok")
                return
        refused = isinstance(result, Answer) and result.errcode != 0
        errcode = result.errcode if isinstance(result, Answer) else 0
        final = refused and self._table().rule(errcode, GETTOKEN).action in ("fix", "human", "state", "token")
        first, longest = _REFUSED_BACKOFF if refused and final else _TRANSIENT_BACKOFF
        entry.failures += 1
        backoff = min(longest, first * 2 ** min(entry.failures - 1, 10))
        entry.not_before = self._monotonic() + backoff
        entry.failure = TokenUnavailable(errcode, final=final, retry_in_seconds=backoff)
        self._renewed(corp_id, "refused" if refused else "no_answer")


def _decode(body: bytes) -> _Body | None:
    try:
        decoded = msgspec.json.decode(body, type=_Body)
    except msgspec.MsgspecError:
        return None
    if not 0 < len(decoded.access_token.encode()) <= _MAX_TOKEN_BYTES or decoded.expires_in <= 0:
        return None
    return decoded
