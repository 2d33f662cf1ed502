"""The last gates before the governor, asked anew for every call: operators' pauses, the breaker, the ban guard,
suppressed people, the content linter. One object a shard; pure but for what its tables have been told.

A gate either ends an action (:class:`~services.executor.domain.End`) or holds an ask for a while (:class:`Hold`). What
is held keeps its place, its deadline runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from services.executor.control import ControlTable
from services.executor.domain import End
from services.executor.guard import Breaker, GuardTable
from services.executor.suppression import SuppressionTable
from services.executor.work import Ask, is_send
from siyu.content import ContentRules, Finding, lint_payload
from siyu.events import Action, GuardSignal, Lane
from siyu.wecom.endpoints import TOUCHING

_BLOCKED_AGAIN_MS = 5_000
_AGAIN_MS = 200
"""Pauses and tables are looked at again this often."""
SUPPRESSIONS_FRESH_MS = 2_000
"""Nobody is contacted while the suppressions may be older than this (wall time): with the commit and the start that
follow, a suppression stops a call within five seconds."""


@dataclass(frozen=True)
class Hold:
    """Ask again at this business time."""

    until_ms: int


class Freshness(Protocol):
    """How current the tables are."""

    def fresh(self, topic: str, within_ms: int) -> bool:
        """Whether the table was complete within so many ms of wall time."""
        ...


class Gates:
    """All gates of one shard."""

    def __init__(
        self,
        *,
        control: ControlTable,
        suppressions: SuppressionTable,
        guard: GuardTable,
        breaker: Breaker,
        content: ContentRules,
        tables: Freshness,
        wall_ms: Callable[[], int],
        refused_content: Callable[[str], None],
    ) -> None:
        """``refused_content`` is told each rule that stopped a text."""
        self._control = control
        self._suppressions = suppressions
        self._guard = guard
        self._breaker = breaker
        self._content = content
        self._tables = tables
        self._wall_ms = wall_ms
        self._refused_content = refused_content
        self._urgent: list[GuardSignal] = []

    # -- before an action begins --------------------------------------------------------------------------------

    def lane_held(self, corp_id: str, endpoint: str, lane: Lane, now_ms: int) -> int:
        """Until when nothing new of this corp, API and lane is taken up; 0: go on."""
        if self._control.paused(corp_id, lane, "", self._wall_ms()) is not None:
            return now_ms + _AGAIN_MS
        return self._breaker.open_until(corp_id, endpoint, "", now_ms)

    def campaign_filter(self, corp_id: str, lane: Lane) -> Callable[[str], bool] | None:
        """Which campaigns of a lane may go; None: all."""
        wall = self._wall_ms()
        if not any(pause.campaign_id for pause in self._control.pauses(wall)):
            return None
        return lambda campaign: self._control.paused(corp_id, lane, campaign, wall) is None

    def action_refused(self, action: Action, now_ms: int) -> tuple[End, bytes] | None:
        """Why a new action must not be carried out at all, with what the ledger keeps about it; None: it may."""
        blocked = self._guard.blocks(
            action.corp_id, action.staff_id, action.campaign_id, action.endpoint, action.lane, now_ms
        )
        if blocked is not None:
            return End("blocked", blocked), b""
        if self._suppressed(action):
            return End("suppressed", "person_suppressed"), b""
        found = [
            finding
            for finding in lint_payload(action.endpoint, action.payload, self._content.at(now_ms))
            if finding.severity == "block"
        ]
        if found:
            for finding in found:
                self._refused_content(finding.rule_id)
            return End("blocked", "content_blocked"), _described(found)
        return None

    # -- before a call ------------------------------------------------------------------------------------------

    def ask_held(self, action: Action, ask: Ask, now_ms: int) -> End | Hold | None:
        """What stands against this call now. What an action under way asks back (results, what became of a call) is
        not held by a pause: it touches nobody, and half-known sends help no one."""
        wall = self._wall_ms()
        first = ask.endpoint == action.endpoint
        if first and self._control.paused(action.corp_id, ask.lane, action.campaign_id, wall) is not None:
            return Hold(now_ms + _AGAIN_MS)
        until_ms = self._breaker.open_until(action.corp_id, ask.endpoint, ask.claim.staff_id, now_ms)
        if until_ms:
            return Hold(until_ms)
        blocked = self._guard.blocks(
            action.corp_id, ask.claim.staff_id, action.campaign_id, ask.endpoint, ask.lane, now_ms
        )
        if blocked is not None:
            # What an action under way asks for besides (results, a reminder) waits: the action cannot end yet.
            return End("blocked", blocked) if first else Hold(now_ms + _BLOCKED_AGAIN_MS)
        if ask.endpoint in TOUCHING:
            if not self._tables.fresh("suppressions", SUPPRESSIONS_FRESH_MS):
                return Hold(now_ms + _AGAIN_MS)
            if self._suppressed(action):
                return End("suppressed", "person_suppressed")
        return None

    def _suppressed(self, action: Action) -> bool:
        """Of an action for one person; a send takes its suppressed people out itself, when each chunk leaves."""
        return (
            action.endpoint in TOUCHING
            and not is_send(action)
            and bool(action.customer_id)
            and self._suppressions.suppressed(action.corp_id, action.customer_id)
        )

    def allowance(self, corp_id: str, staff_id: str, now_ms: int) -> int:
        """Percent of our own paces that are left, at least 1: who must not be called for at all is stopped by the gates
        above, and what a resting account has sent before still has to be read."""
        return max(1, self._guard.allowance(corp_id, staff_id, now_ms))

    # -- what calls came to -------------------------------------------------------------------------------------

    def calling(self, ask: Ask, now_ms: int) -> None:
        """A call starts."""
        self._breaker.trying(ask.claim.corp_id, ask.endpoint, ask.claim.staff_id, now_ms)

    def answered(self, action: Action, ask: Ask, errcode: int | None, now_ms: int) -> None:
        """A call ended; None: without an answer."""
        self._urgent += self._breaker.record(
            ask.claim.corp_id,
            ask.endpoint,
            ask.claim.staff_id,
            errcode,
            now_ms,
            campaign_id=action.campaign_id,
            action_id=action.action_id,
            wall_ms=self._wall_ms(),
        )
        if errcode == 0 and ask.endpoint in TOUCHING:
            self._breaker.touched(ask.claim.corp_id, ask.claim.staff_id, action.campaign_id, ask.claim.persons, now_ms)

    @property
    def urgent(self) -> bool:
        """Something has to be told at once."""
        return bool(self._urgent)

    def due(self, now_ms: int) -> bool:
        """Something has to be told now."""
        due_ms = self._breaker.next_due_ms()
        return self.urgent or 0 < due_ms <= now_ms

    def signals(self, now_ms: int) -> list[GuardSignal]:
        """What the guard has to be told with the next transaction, each once."""
        urgent, self._urgent = self._urgent, []
        due_ms = self._breaker.next_due_ms()
        if due_ms and due_ms <= now_ms:
            urgent += self._breaker.due_signals(now_ms, wall_ms=self._wall_ms())
        return urgent


def _described(findings: list[Finding]) -> bytes:
    """Rules and places, never the text: it may name a person."""
    return msgspec.json.encode({"content": [{"rule": f.rule_id, "span": list(f.span)} for f in findings]})
