"""A stretch of a story: what is drawn for it at once, as columns, and told in order of time. Pure.

Every kind of thing has a generator of its own, made of the seed, the stretch and the kind's name: more of one kind, or
a new one, moves nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from simulator.world.idspace import generator
from simulator.world.opening import hours_s
from simulator.world.schedule import Action
from siyu.events.business_time import business_day_start_ms

CHANCES = 4
"""Numbers between 0 and 1 that come with everything that is drawn."""

Numbers = npt.NDArray[np.int64]
Column = Callable[[np.random.Generator, int], Numbers]
"""So many values of one of the three numbers that go with a thing."""
Verb = Callable[[int, int, int, list[float], int], None]
"""Does one thing: three numbers whose meaning is the verb's, its chances, and the second."""


@dataclass(frozen=True)
class Drawn:
    """Things of one kind that people mean to do."""

    times: Numbers
    """Epoch seconds, in any order."""
    numbers: npt.NDArray[np.int64]
    """Three a thing."""
    chances: npt.NDArray[np.float64]

    def only(self, which: npt.NDArray[np.bool_]) -> Drawn:
        """Some of them."""
        return Drawn(self.times[which], self.numbers[which], self.chances[which])


@dataclass(frozen=True)
class Stretch:
    """From ``from_s`` on, before ``to_s``; ``days`` of the story."""

    seed: int
    corp_id: str
    start_s: int
    """Beginning of the story, so that the same story may begin at any time."""
    from_s: int
    to_s: int
    days: float
    shop_hours: bool
    """Within the opening hours of its day, of which it may be a part; else evenly."""

    def chance(self, kind: str) -> np.random.Generator:
        """The generator of one kind of thing."""
        return generator(self.seed, self.corp_id, "stretch", self.from_s - self.start_s, kind)

    def times(self, chance: np.random.Generator, count: int) -> Numbers:
        """So many seconds; at shop hours of the whole day, so that some may lie before the stretch: for nobody."""
        if not self.shop_hours:
            return self.from_s + (chance.random(count) * (self.to_s - self.from_s)).astype(np.int64)
        return business_day_start_ms(self.from_s * 1000) // 1000 + hours_s(chance, count).astype(np.int64)

    def draw(self, kind: str, a_day: float, *columns: Column) -> Drawn:
        """As many as there happen to be at a rate of ``a_day``."""
        chance = self.chance(kind)
        count = int(chance.poisson(a_day * self.days))
        times = self.times(chance, count)
        numbers = np.zeros((count, 3), np.int64)
        for place, column in enumerate(columns):
            numbers[:, place] = column(chance, count)
        return self.inside(Drawn(times, numbers, chance.random((count, CHANCES))))

    def given(self, kind: str, times: Numbers, numbers: npt.NDArray[np.int64]) -> Drawn:
        """Things that are decided already, but for their chances."""
        return self.inside(Drawn(times, numbers, self.chance(kind).random((len(times), CHANCES))))

    def inside(self, drawn: Drawn) -> Drawn:
        """Those of the stretch itself."""
        return drawn.only((drawn.times >= self.from_s) & (drawn.times < self.to_s))


def in_order(parts: Sequence[tuple[Verb, Drawn]]) -> Iterator[tuple[int, Action]]:
    """What the schedule is fed with: things of one second in the order of their kinds."""
    if not parts:
        return
    times = np.concatenate([drawn.times for _, drawn in parts])
    order = np.argsort(times, kind="stable")
    numbers = np.concatenate([drawn.numbers for _, drawn in parts])[order].tolist()
    chances = np.concatenate([drawn.chances for _, drawn in parts])[order].tolist()
    verbs = np.repeat(np.arange(len(parts)), [len(drawn.times) for _, drawn in parts])[order].tolist()
    for time_s, verb, (x, y, z), chances_of in zip(times[order].tolist(), verbs, numbers, chances, strict=True):
        yield time_s, partial(parts[verb][0], x, y, z, chances_of)
