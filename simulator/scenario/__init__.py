"""What happens in a world: planned as a whole up front, or drawn as it goes on; from seed, start and calls alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.callbacks import OtherEvent
from simulator.world.bills import Bill
from simulator.world.corp import CorpWorld
from simulator.world.people import People
from simulator.world.relations import ContactChange, Opening


class CannotPlay(ValueError):
    """A scenario that cannot begin now. Says what to change."""


def _stand_still(_corps: Mapping[str, CorpWorld]) -> None:
    """A world in which nothing happens but the story."""


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

    openings: Mapping[str, Opening] = field(default_factory=dict)
    """By corp: the relationships that exist before the story begins."""
    people: Mapping[str, People] = field(default_factory=dict)
    """By corp; where there is none, plain people are made of ``staff`` and ``customers``."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """The platform's rules where they differ from the documented ones, by section (``CorpWorld.rules_of``)."""
    animate: Callable[[Mapping[str, CorpWorld]], None] = _stand_still
    """Called once when the scenario begins: puts into the schedule what is not told beforehand."""
    tells: Callable[[], Mapping[str, Any]] = dict
    """More sections of the truth, by name: what only whoever planted it can know."""
    ends_s: int = 0
    """The scenario lasts at least until then (business second)."""
    open_ended: bool = False
    """It lasts until the process ends."""

    def timeline(self) -> list[ContactChange | OtherEvent]:
        """Everything that becomes a callback, in order of time."""
        events: list[ContactChange | OtherEvent] = [*self.contacts, *self.others]
        return sorted(events, key=lambda event: event.time_s)

    @property
    def end_s(self) -> int:
        """When the last thing has happened and can be read."""
        times = [event.time_s for event in self.contacts] + [event.time_s for event in self.others]
        return max([*times, *(-(-bill.visible_ms // 1000) for bill in self.bills)], default=0)
