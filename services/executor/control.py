"""What operators told the executors: pauses, cancels, and verdicts on actions in doubt.

What a record means is said in siyu/actions/control.py, which makes them. Here the newest of each id is kept, in the
order of the topic (one partition), so that every process comes to the same answer. A record that says nothing an
executor could do is refused and changes nothing.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from siyu.actions.control import LANES, TOPIC, Verdict, covers, holds, takes_back
from siyu.events import ControlRecord, codec
from siyu.ops.tables import RecordRefused

__all__ = ["TOPIC", "Changes", "ControlError", "ControlTable"]

_FORGET_EVERY_MS = 60_000


class ControlError(RecordRefused):
    """A control record that says nothing an executor could do. The message names the field, never a value."""


class Changes:
    """What one shard has not looked at yet: at most one record per id, however long it does not look."""

    def __init__(self) -> None:
        self._waiting: dict[str, ControlRecord] = {}

    def drain(self) -> list[ControlRecord]:
        """The records since the last call, the newest of each id; ``active`` 0: taken back."""
        drained = list(self._waiting.values())
        self._waiting.clear()
        return drained

    def _add(self, record: ControlRecord) -> None:
        self._waiting.pop(record.id, None)
        self._waiting[record.id] = record


class ControlTable:
    """Follows ``executor.control``. Bounded: what has expired is forgotten, and all but pauses and the cancels of
    campaigns expires."""

    def __init__(self) -> None:
        self._pauses: dict[str, ControlRecord] = {}
        self._scopes: dict[str, ControlRecord] = {}
        """Cancels of a corp, a lane, a campaign or several of these together."""
        self._actions: dict[tuple[str, str], ControlRecord] = {}
        """Cancels and verdicts of one action each, by kind and action."""
        self._where: dict[str, tuple[str, str]] = {}
        """Of the line above, by record id."""
        self._subscribed: list[Changes] = []
        self._forget_due_ms = 0

    def __len__(self) -> int:
        return len(self._pauses) + len(self._scopes) + len(self._actions)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Takes one record of the topic; a tombstone takes back. Raises ControlError or siyu.events.CodecError."""
        if value is None:
            gone = self._remove(key.decode(errors="replace"))
            if gone is not None:
                self._tell(msgspec.structs.replace(gone, active=0))
            return
        record = codec().decode_as(ControlRecord, value)
        _check(record)
        if key != record.id.encode():
            raise ControlError("the key is not the record's id")
        self._remove(record.id)
        if record.active:
            if record.kind == "pause":
                self._pauses[record.id] = record
            elif record.action_id:
                self._actions[record.kind, record.action_id] = record
                self._where[record.id] = (record.kind, record.action_id)
            else:
                self._scopes[record.id] = record
        self._tell(record)

    def subscribe(self) -> Changes:
        """From now on told of every record; begins with all that are kept."""
        changes = Changes()
        for record in (*self._pauses.values(), *self._scopes.values(), *self._actions.values()):
            changes._add(record)
        self._subscribed.append(changes)
        return changes

    def unsubscribe(self, changes: Changes) -> None:
        """Told no more."""
        self._subscribed.remove(changes)

    def paused(self, corp_id: str, lane: str, campaign_id: str, wall_ms: int) -> str | None:
        """Id of a pause that holds such an action at ``wall_ms``; None: it may go.

        An action without a campaign is held by no campaign's pause.
        """
        for pause in self._pauses.values():
            if covers(pause, corp_id=corp_id, lane=lane, campaign_id=campaign_id) and holds(pause, wall_ms):
                return pause.id
        return None

    def pauses(self, wall_ms: int) -> list[ControlRecord]:
        """The pauses in force, by id."""
        return [pause for _, pause in sorted(self._pauses.items()) if holds(pause, wall_ms)]

    def cancelled(
        self, action_id: str, *, corp_id: str = "", lane: str = "", campaign_id: str = "", appended_ms: int = 0
    ) -> ControlRecord | None:
        """The word that this action must not be called; None: there is none.

        ``appended_ms``: the broker's timestamp of the action (``siyu.actions.control.takes_back``).
        """
        alone = self._actions.get(("cancel", action_id))
        if alone is not None:
            return alone
        for cancel in self._scopes.values():
            if takes_back(cancel, corp_id=corp_id, lane=lane, campaign_id=campaign_id, appended_ms=appended_ms):
                return cancel
        return None

    def settled(self, action_id: str) -> ControlRecord | None:
        """A person's verdict on an action in doubt (``done`` or ``not_done``); None: there is none."""
        return self._actions.get(("settle", action_id))

    def forget(self, wall_ms: int) -> int:
        """Drops what has expired; returns how many. To be called now and then: it looks at everything, once a
        minute."""
        if wall_ms < self._forget_due_ms:
            return 0
        self._forget_due_ms = wall_ms + _FORGET_EVERY_MS
        over = [
            record.id
            for record in (*self._pauses.values(), *self._scopes.values(), *self._actions.values())
            if not holds(record, wall_ms)
        ]
        for record_id in over:
            self._remove(record_id)
        return len(over)

    def _remove(self, record_id: str) -> ControlRecord | None:
        place = self._where.pop(record_id, None)
        if place is not None:
            return self._actions.pop(place)
        return self._pauses.pop(record_id, None) or self._scopes.pop(record_id, None)

    def _tell(self, record: ControlRecord) -> None:
        for changes in self._subscribed:
            changes._add(record)


def _check(record: ControlRecord) -> None:
    if not record.id:
        raise ControlError("id is empty")
    if record.active not in (0, 1):
        raise ControlError("active is neither 0 nor 1")
    if record.expires_ms < 0:
        raise ControlError("expires_ms is negative")
    if record.lane and record.lane not in LANES:
        raise ControlError(f"lane is none of {', '.join(LANES)}")
    if record.kind == "pause" and record.action_id:
        raise ControlError("action_id: a pause is of a corp, a lane or a campaign")
    if record.kind == "cancel" and not (record.action_id or record.corp_id or record.lane or record.campaign_id):
        raise ControlError("a cancel names nothing; to stop everything, pause it")
    if record.kind == "settle":
        if not record.action_id:
            raise ControlError("action_id: a verdict is about one action")
        if record.verdict not in get_args(Verdict):
            raise ControlError(f"verdict is none of {', '.join(get_args(Verdict))}")
