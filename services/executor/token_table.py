"""The access tokens as every executor knows them, from the topic ``wecom.tokens``.

The topic has one partition, and its order decides: the token that was written last is the current one, in every process
alike. WeCom's refusal of a token (40014, 42001) is a record too. It names one issue of one token, so that a hundred
processes that were refused with the same token say the same thing, and whoever was refused with an older one says
nothing new.

Nothing here shows a token: not in a ``repr``, an error or a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from services.executor.key_ring import CannotOpen, KeyRing
from services.executor.token_rules import TokenRules
from siyu.events import WecomToken, codec
from siyu.ops.corps import Corp
from siyu.ops.tables import RecordRefused

TOPIC = "wecom.tokens"
MAX_TOKEN_BYTES = 512
"""Fact sheet 3.1."""


class TokenRecordError(RecordRefused):
    """A record that must not be used; the message names the reason: ``unknown_key``, ``altered`` or the field."""


@dataclass(frozen=True)
class Issue:
    """One token as it was handed out once. Times are wall time, epoch ms. A platform may hand the same token out
    again; that is another issue."""

    fingerprint: str
    issued_at_ms: int
    expires_at_ms: int
    refused: bool
    """WeCom no longer takes it, by somebody's word."""
    token: str = field(repr=False)

    @property
    def identity(self) -> tuple[str, int]:
        """What a refusal names."""
        return self.fingerprint, self.issued_at_ms


class TokenTable:
    """Follows ``wecom.tokens`` for the corps of this process. One event loop."""

    def __init__(self, corps: Mapping[str, Corp], ring: KeyRing, rules: TokenRules) -> None:
        self._corps = corps
        self._ring = ring
        self._report_again_ms = rules.report_again_ms
        self._issues: dict[str, Issue] = {}
        self._refused: dict[str, tuple[str, int]] = {}
        self._reported: dict[str, tuple[tuple[str, int], int]] = {}
        """By this process: which issue, and when (wall ms)."""
        self._arrivals: dict[str, asyncio.Event] = {}
        self._listeners: list[Callable[[], None]] = []

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Takes one record of the topic. Raises TokenRecordError or siyu.events.CodecError; then the token that was
        current stays. Another app's tokens are none of ours. A tombstone takes the token away."""
        if value is None:
            self._erase(key)
            return
        record = codec().decode_as(WecomToken, value)
        if key != token_key(record.corp_id, record.agent_id, record.kind):
            raise TokenRecordError("the key is not the record's")
        corp = self._corps.get(record.corp_id)
        if corp is None or corp.agent_id != record.agent_id:
            return
        try:
            token = self._ring.open(record)
        except CannotOpen as error:
            raise TokenRecordError(error.reason) from None
        named = (record.fingerprint, record.issued_at_ms)
        if record.kind == "refused":
            self._refused[record.corp_id] = named
            held = self._issues.get(record.corp_id)
            if held is None or held.identity != named or held.refused:
                return
            self._issues[record.corp_id] = replace(held, refused=True)
        else:
            if not 0 < len(token.encode()) <= MAX_TOKEN_BYTES:
                raise TokenRecordError("the token is empty or too long")
            before = self._issues.get(record.corp_id)
            again = before is not None and before.identity == named and before.refused
            self._issues[record.corp_id] = Issue(
                fingerprint=record.fingerprint,
                issued_at_ms=record.issued_at_ms,
                expires_at_ms=record.expires_at_ms,
                refused=again or self._refused.get(record.corp_id) == named,
                token=token,
            )
            arrival = self._arrivals.pop(record.corp_id, None)
            if arrival is not None:
                arrival.set()
        for tell in self._listeners:
            tell()

    def current(self, corp_id: str, wall_ms: int) -> str | None:
        """A token that should work at ``wall_ms``; None: there is none now (see :meth:`wait`)."""
        issue = self._issues.get(corp_id)
        if issue is None or issue.refused or wall_ms >= issue.expires_at_ms:
            return None
        reported = self._reported.get(corp_id)
        if reported is not None and reported[0] == issue.identity and wall_ms < reported[1] + self._report_again_ms:
            return None
        return issue.token

    def issue(self, corp_id: str) -> Issue | None:
        """What was handed out last; None: nothing is known."""
        return self._issues.get(corp_id)

    def refused(self, corp_id: str, token: str, *, wall_ms: int, nonce: bytes) -> WecomToken | None:
        """WeCom refused ``token`` (40014, 42001): the record to write (:func:`key_of`), so that its owner renews it.

        None when there is nothing to say: the token has been replaced, or its refusal is known. From now on this
        process no longer uses it. Should the record get lost, it is used again after ``report_again_ms``, refused
        again, and reported again.
        """
        issue = self._issues.get(corp_id)
        if issue is None or issue.refused or issue.token != token or self.current(corp_id, wall_ms) is None:
            return None
        self._reported[corp_id] = (issue.identity, wall_ms)
        record = WecomToken(
            corp_id=corp_id,
            agent_id=self._corps[corp_id].agent_id,
            kind="refused",
            fingerprint=issue.fingerprint,
            key_id="",
            nonce=b"",
            ciphertext=b"",
            issued_at_ms=issue.issued_at_ms,
            expires_at_ms=issue.expires_at_ms,
            written_at_ms=wall_ms,
        )
        return self._ring.seal(record, "", nonce)

    def wait(self, corp_id: str) -> Awaitable[object]:
        """Done when the next token of the corp arrives after this call. Ask :meth:`current` before and after."""
        return self._arrivals.setdefault(corp_id, asyncio.Event()).wait()

    def listen(self, tell: Callable[[], None]) -> Callable[[], None]:
        """``tell`` is called at every change; returns what ends that."""
        self._listeners.append(tell)
        return lambda: self._listeners.remove(tell)

    def _erase(self, key: bytes) -> None:
        for corp_id, corp in self._corps.items():
            if key == token_key(corp_id, corp.agent_id, "token"):
                self._issues.pop(corp_id, None)
            elif key == token_key(corp_id, corp.agent_id, "refused"):
                self._refused.pop(corp_id, None)
        for tell in self._listeners:
            tell()


def token_key(corp_id: str, agent_id: str, kind: str) -> bytes:
    """Key in the topic."""
    return f"{corp_id}|{agent_id}|{kind}".encode()


def key_of(record: WecomToken) -> bytes:
    """The key a record is written under."""
    return token_key(record.corp_id, record.agent_id, record.kind)
