"""What happens in a world: planned up front from the seed, so that the truth depends on seed and start alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.bills import Bill
from simulator.callbacks import OtherEvent
from simulator.world import ContactChange


class CannotPlay(ValueError):
    """A scenario that cannot begin now. Says what to change."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario. ``contacts`` and ``others`` become callbacks in order of time, ``bills`` are read."""

    scenario: str
    seed: int
    corps: tuple[str, ...]
    staff: Mapping[str, tuple[str, ...]]
    """Staff ids by corp."""
    customers: Mapping[str, frozenset[str]]
    """Customer ids by corp."""
    contacts: tuple[ContactChange, ...]
    others: tuple[OtherEvent, ...]
    bills: tuple[Bill, ...]
    replay_from_s: int = 0
    """Business second at which compressed time begins; 0: it never does."""
    retail: Mapping[str, Any] = field(default_factory=dict)
    """What the truth says about the file that was replayed."""

    def timeline(self) -> list[ContactChange | OtherEvent]:
        """Everything that becomes a callback, in order of time."""
        events: list[ContactChange | OtherEvent] = [*self.contacts, *self.others]
        return sorted(events, key=lambda event: event.time_s)

    @property
    def end_s(self) -> int:
        """When the last thing has happened and can be read."""
        times = [event.time_s for event in self.contacts] + [event.time_s for event in self.others]
        return max([*times, *(-(-bill.visible_ms // 1000) for bill in self.bills)], default=0)
