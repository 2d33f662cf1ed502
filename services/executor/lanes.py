"""The lanes, as data. Each has its own topic, consumer group, transactional producer and loop, so that none waits for
another; adding one is a line here."""

from __future__ import annotations

from dataclasses import dataclass

from services.executor.performer import Patience
from siyu.events import Lane as LaneName


@dataclass(frozen=True)
class Lane:
    """One lane. Its consumer group is ``executor.<name>``."""

    name: LaneName
    window: int
    """Actions of one partition taken and not yet committed: bounds memory, and how far a slow one is overtaken."""
    patience: Patience

    @property
    def topic(self) -> str:
        return f"actions.{self.name}"

    @property
    def group(self) -> str:
        return f"executor.{self.name}"


LANES: tuple[Lane, ...] = (
    # A code lives 20 s: one call that hangs must leave time for another.
    Lane("welcome", window=500, patience=Patience(call_timeout_seconds=4.0, hold_seconds=60.0)),
    # An answer may be 7 MB, so few at a time; the platform needs its time for a page of 1000 bills.
    Lane("sync", window=16, patience=Patience(call_timeout_seconds=20.0, hold_seconds=900.0)),
)
