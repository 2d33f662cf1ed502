"""Asks WeCom for access tokens: for each corp one owner, which is the shard of ``quota_scope(corp, "gettoken")``.

At most one gettoken per corp is under way; a token is renewed early, while the old one still works; one that WeCom
refused is renewed once, however many processes were refused with it; and a gettoken that fails is repeated ever more
slowly, since repeated wrong secrets get our address banned for an hour (fact sheet 3.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from services.executor.key_ring import KeyRing
from services.executor.token_rules import Backoff, TokenRules
from services.executor.token_table import MAX_TOKEN_BYTES, Issue, TokenTable
from siyu.events import WecomToken
from siyu.ops.corps import Corp
from siyu.wecom.client import Answer, Result
from siyu.wecom.endpoints import GETTOKEN
from siyu.wecom.errors import ErrorTable

Failed = Literal[
    "unanswered",  # no answer, or one that asks to try again
    "limited",  # the frequency limit: we are banned for a while
    "refused",  # wrong secret, unknown corp, address not trusted: a person has to act
]
Renewed = Literal["ok", "refused", "no_answer"]

NEVER_MS = 1 << 62
_LONGEST_LIFE_S = 30 * 86_400
"""A platform's ``expires_in`` beyond this is taken as this: it must fit in a time."""
_LOOK_S = 0.25

Fetch = Callable[[Corp], Awaitable[Result]]
"""One gettoken, admitted by the governor like every call."""
Publish = Callable[[list[WecomToken]], Awaitable[None]]
"""Returns when the records are durable in ``wecom.tokens`` (``token_table.key_of``); raises when the shard is lost."""


@dataclass(frozen=True)
class TokenFailure:
    """Why a corp has had no new token since the last attempt."""

    errcode: int
    """WeCom's; 0: it did not answer."""
    final: bool
    """A person has to act; waiting does not help."""
    retry_at_ms: int
    """Wall time."""


@dataclass
class _Corp:
    under_way: bool = False
    not_before_ms: int = 0
    failed: Failed | None = None
    failures: int = 0
    """In a row, of that kind."""
    refused: tuple[str, int] | None = None
    """The refused issue that was seen last."""
    young_refusals: int = 0
    """Issues in a row that were refused soon after they were handed out."""
    written: tuple[str, int] | None = None
    """What was written last and has not come back through the topic yet."""
    seen_by_ms: int = 0


@dataclass
class Renewals:
    """When to ask for the next token of each corp. Pure; wall time in epoch ms comes in."""

    rules: TokenRules
    _corps: dict[str, _Corp] = field(default_factory=dict)

    def due_ms(self, corp_id: str, issue: Issue | None, now_ms: int) -> int:
        """When to ask, given what the table says was handed out last; at most ``now_ms``: at once. :data:`NEVER_MS`:
        not before something happens."""
        corp = self._corps.setdefault(corp_id, _Corp())
        if corp.under_way:
            return NEVER_MS
        if corp.written is not None:
            if (issue is None or issue.identity != corp.written) and now_ms < corp.seen_by_ms:
                return corp.seen_by_ms
            corp.written = None
        if issue is None:
            return corp.not_before_ms
        if not issue.refused:
            life_ms = issue.expires_at_ms - issue.issued_at_ms
            return max(corp.not_before_ms, issue.issued_at_ms + life_ms * self.rules.renew_after_percent // 100)
        if corp.refused != issue.identity:
            corp.refused = issue.identity
            if now_ms - issue.issued_at_ms < self.rules.young_ms:
                corp.young_refusals += 1
                wait_ms = self.rules.young.after(corp.young_refusals)
                corp.not_before_ms = max(corp.not_before_ms, now_ms + wait_ms)
            else:
                corp.young_refusals = 0
        return corp.not_before_ms

    def asked(self, corp_id: str) -> None:
        """A gettoken is under way."""
        self._corps.setdefault(corp_id, _Corp()).under_way = True

    def given_up(self, corp_id: str) -> None:
        """It ended without any result: the call was not made."""
        self._corps[corp_id].under_way = False

    def written(self, corp_id: str, identity: tuple[str, int], now_ms: int) -> None:
        """It brought a token, which is durable in the topic now."""
        corp = self._corps[corp_id]
        corp.under_way = False
        corp.failed, corp.failures = None, 0
        corp.not_before_ms = now_ms + self.rules.between_ms
        corp.written, corp.seen_by_ms = identity, now_ms + self.rules.seen_within_ms

    def failed(self, corp_id: str, how: Failed, now_ms: int) -> int:
        """It failed; returns when to ask again (wall ms)."""
        corp = self._corps[corp_id]
        corp.under_way = False
        corp.failures = corp.failures + 1 if corp.failed == how else 1
        corp.failed = how
        backoffs: dict[Failed, Backoff] = {
            "unanswered": self.rules.unanswered,
            "limited": self.rules.limited,
            "refused": self.rules.refused,
        }
        corp.not_before_ms = now_ms + backoffs[how].after(corp.failures)
        return corp.not_before_ms


class TokenOwner:
    """Keeps the tokens of the corps a shard owns."""

    def __init__(
        self,
        corps: Collection[Corp],
        table: TokenTable,
        ring: KeyRing,
        rules: TokenRules,
        *,
        fetch: Fetch,
        publish: Publish,
        errors: Callable[[], ErrorTable],
        wall_ms: Callable[[], int],
        nonce: Callable[[], bytes],
        may_ask: Callable[[], bool] = lambda: True,
        renewed: Callable[[str, Renewed], None] = lambda corp_id, result: None,
    ) -> None:
        """``may_ask``: whether the table is complete, so that a token that is there is not asked for again.
        ``nonce``: 12 random bytes. ``renewed(corp_id, result)`` is told of every gettoken: a metric's hook."""
        self._corps = {corp.corp_id: corp for corp in corps}
        self._table = table
        self._ring = ring
        self._fetch = fetch
        self._publish = publish
        self._errors = errors
        self._wall_ms = wall_ms
        self._nonce = nonce
        self._may_ask = may_ask
        self._renewed = renewed
        self._renewals = Renewals(rules)
        self._failures: dict[str, TokenFailure] = {}
        self._woken = asyncio.Event()

    def failure(self, corp_id: str) -> TokenFailure | None:
        """What keeps this corp without a new token; None: the last gettoken worked, or there was none."""
        return self._failures.get(corp_id)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``, or cancelled. Raises what ``publish`` or ``fetch`` raise: then the shard is lost."""
        silence = self._table.listen(self._woken.set)
        stopping = asyncio.create_task(stop.wait())
        under_way: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                self._woken.clear()
                under_way |= self._start_due()
                woken = asyncio.create_task(self._woken.wait())
                done, _ = await asyncio.wait(
                    {stopping, woken, *under_way}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                woken.cancel()
                for task in done & under_way:
                    under_way.discard(task)
                    task.result()
        finally:
            silence()
            # A token that is under way is lost, and the successor asks for another.
            for task in (stopping, *under_way):
                task.cancel()
            await asyncio.gather(stopping, *under_way, return_exceptions=True)

    def _start_due(self) -> set[asyncio.Task[None]]:
        if not self._may_ask():
            return set()
        now_ms = self._wall_ms()
        started = set()
        for corp in self._corps.values():
            if self._renewals.due_ms(corp.corp_id, self._table.issue(corp.corp_id), now_ms) <= now_ms:
                self._renewals.asked(corp.corp_id)
                started.add(asyncio.create_task(self._renew(corp)))
        return started

    async def _renew(self, corp: Corp) -> None:
        # Counted from before the request: a token never lives longer for us than for WeCom.
        asked_ms = self._wall_ms()
        try:
            result = await self._fetch(corp)
        except BaseException:
            self._renewals.given_up(corp.corp_id)
            raise
        if isinstance(result, Answer) and result.errcode == 0:
            body = _decode(result.body)
            if body is not None:
                record = self._record(corp, body, asked_ms)
                await self._publish([record])
                identity = (record.fingerprint, record.issued_at_ms)
                self._renewals.written(corp.corp_id, identity, self._wall_ms())
                self._failures.pop(corp.corp_id, None)
                self._renewed(corp.corp_id, "ok")
                return
        errcode = result.errcode if isinstance(result, Answer) else 0
        how = self._how(errcode)
        retry_at_ms = self._renewals.failed(corp.corp_id, how, self._wall_ms())
        self._failures[corp.corp_id] = TokenFailure(errcode, how == "refused", retry_at_ms)
        self._renewed(corp.corp_id, "refused" if errcode else "no_answer")

    def _how(self, errcode: int) -> Failed:
        if errcode == 0:
            return "unanswered"
        action = self._errors().rule(errcode, GETTOKEN).action
        if action == "wait":
            return "limited"
        return "refused" if action in ("fix", "human", "state", "token") else "unanswered"

    def _record(self, corp: Corp, body: _Body, asked_ms: int) -> WecomToken:
        record = WecomToken(
            corp_id=corp.corp_id,
            agent_id=corp.agent_id,
            kind="token",
            fingerprint=self._ring.fingerprint(corp.corp_id, corp.agent_id, body.access_token),
            key_id="",
            nonce=b"",
            ciphertext=b"",
            issued_at_ms=asked_ms,
            expires_at_ms=asked_ms + min(body.expires_in, _LONGEST_LIFE_S) * 1000,
            written_at_ms=self._wall_ms(),
        )
        return self._ring.seal(record, body.access_token, self._nonce())


class _Body(msgspec.Struct):
    access_token: str = ""
    expires_in: int = 0

    def __repr__(self) -> str:
        return f"_Body(expires_in={self.expires_in})"


def _decode(body: bytes) -> _Body | None:
    """None: an answer without a usable token."""
    try:
        decoded = msgspec.json.decode(body, type=_Body)
    except msgspec.MsgspecError:
        return None
    if not 0 < len(decoded.access_token.encode()) <= MAX_TOKEN_BYTES or decoded.expires_in <= 0:
        return None
    return decoded
