"""The limits in force in one process: changed without a deploy, never by something that cannot be used.

A revision that has been applied once stays known, so that a decision of yesterday is evaluated with what it was made
with.
"""

from __future__ import annotations

from collections.abc import Callable

from siyu.events.types import ConfigRecord
from siyu.limits.loading import parse_registry
from siyu.limits.model import LimitRegistry, LimitsError, LimitSet

KIND = "limits"
NEWEST = "registry"
"""Id of the record that is in force; a record whose id is its revision is history."""


class LimitSource:
    """Not thread-safe: it belongs to the loop that reads the topic ``config``."""

    def __init__(self, seed: LimitRegistry, refused: Callable[[str], None]) -> None:
        """``seed`` holds until a record is offered; ``refused`` is told why one is not taken over."""
        self._refused = refused
        self._known = {seed.revision: seed}
        self._registry = seed
        self._current: LimitSet | None = None
        self._until_ms: int | None = None

    @property
    def registry(self) -> LimitRegistry:
        """The last good one."""
        return self._registry

    def offer(self, record: ConfigRecord | None) -> None:
        """Takes a record of the topic ``config`` over, or says why not and keeps the last good one. A record of
        another kind is none of its business; None (the key was deleted) changes nothing."""
        if record is None:
            self._refused("the limits in force were deleted from the topic config; the last good ones stay")
            return
        if record.kind != KIND:
            return
        try:
            registry = registry_of(record)
        except LimitsError as error:
            self._refused(str(error))
            return
        self._known[registry.revision] = registry
        if record.id == NEWEST:
            self._registry, self._current = registry, None

    def current(self, now_ms: int) -> LimitSet:
        """What is in force at this moment of business time; exact to the millisecond, cheap between changes."""
        current = self._current
        if current is None or now_ms < current.as_of_ms or (self._until_ms is not None and now_ms >= self._until_ms):
            current = self._current = self._registry.at(now_ms)
            self._until_ms = self._registry.next_change_ms(now_ms)
        return current

    def at(self, revision: str, as_of_ms: int) -> LimitSet | None:
        """What was in force then under a revision; None when that revision was never seen here."""
        registry = self._known.get(revision)
        return None if registry is None else registry.at(as_of_ms)


def registry_of(record: ConfigRecord) -> LimitRegistry:
    """The validated registry of a record. Raises LimitsError when it cannot be used or is not what the record says."""
    registry = parse_registry(record.value)
    if registry.revision != record.revision:
        raise LimitsError(
            f"limits record {record.id}: says revision {record.revision}, its content is {registry.revision}"
        )
    if record.id not in (NEWEST, record.revision):
        raise LimitsError(f"limits record {record.id}: its id is neither {NEWEST} nor its revision")
    return registry


def records_of(
    registry: LimitRegistry, *, author: str, reason: str, written_at_ms: int
) -> tuple[ConfigRecord, ConfigRecord]:
    """What puts a registry in force: its place in the history first, then the newest. ``written_at_ms``: wall time.
    The dates of its limits stand inside it, so the records themselves hold at once (``effective_from_ms`` 0)."""
    history, newest = (
        ConfigRecord(
            kind=KIND,
            id=record_id,
            revision=registry.revision,
            effective_from_ms=0,
            value=registry.to_json(),
            author=author,
            reason=reason,
            written_at_ms=written_at_ms,
        )
        for record_id in (registry.revision, NEWEST)
    )
    return history, newest
