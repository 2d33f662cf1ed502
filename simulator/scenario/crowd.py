"""Who there is to do something: staff by their popularity, pairs of friends, people who come for the first time."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from simulator.scenario.file import Scenario
from simulator.scenario.story_time import DAY_S
from simulator.scenario.stretches import Numbers
from simulator.world.corp import CorpWorld
from simulator.world.groups import Groups
from simulator.world.idspace import generator
from simulator.world.opening import Opened, id_of_unionid
from simulator.world.people import ACTIVE
from simulator.world.relations import ContactChange
from simulator.world.tags import CONSOLE, TagBook

_LONG_AGO_S = 200 * DAY_S


class Crowd:
    """The people of one corp, by number: staff by their place in the opening, customers by index."""

    def __init__(self, corp: CorpWorld, scenario: Scenario, world: Opened) -> None:
        self._corp = corp
        self._scenario = scenario
        self.world = world
        self.columns = world.columns
        population = world.columns.population
        self.first_outsider = population.customers
        self.next_newcomer = self.first_newcomer = population.customers + population.group_only
        self._last_newcomer = world.columns.size
        self.gained: list[tuple[str, str]] = []
        """(staff, customer) of friendships made since the opening, each once."""
        self._gained_pairs: set[tuple[str, str]] = set()
        corp.happened.append(self._happened)
        corp.people.id_of_unionid = partial(id_of_unionid, world.identities, self._has_met)

    def popular(self, picks: npt.NDArray[np.float64]) -> Numbers:
        """Staff members by numbers between 0 and 1, those with many customers more often."""
        popularity = self.columns.popularity
        at = np.searchsorted(popularity, picks * popularity[-1], side="right")
        return np.asarray(np.minimum(at, len(popularity) - 1), np.int64)

    def anybody(self, pick: float) -> str:
        """One of them by name."""
        return self.columns.staff_ids[int(self.popular(np.array([pick]))[0])]

    def works(self, staff_id: str) -> bool:
        """Whether somebody is still there, under this userid."""
        member = self._corp.people.staff.get(staff_id)
        return member is not None and member.status == ACTIVE

    def colleague(self, staff_id: str, pick: float) -> str:
        """Somebody else of the store, who still works there; the member themselves where there is nobody."""
        staff_ids = self.columns.staff_ids
        number = self.world.acquaintances.number_of(staff_id)
        if number is None:
            return staff_id
        size = self.columns.population.staff_per_store
        first = number // size * size
        others = [other for other in staff_ids[first : first + size] if other != staff_id and self.works(other)]
        return others[int(pick * len(others))] if others else staff_id

    def pair(self, position: int) -> tuple[str, str]:
        """(staff, customer) by position: those of the opening, then those gained since."""
        columns = self.columns
        if position < len(columns.customers):
            staff_id = columns.staff_ids[columns.staff[position]]
            return staff_id, columns.ids.id(int(columns.customers[position]))
        return self.gained[position - len(columns.customers)]

    def newcomer(self) -> str | None:
        """Somebody who knows nobody yet; None when all have come."""
        if self.next_newcomer >= self._last_newcomer:
            return None
        self.next_newcomer += 1
        return self.columns.ids.id(self.next_newcomer - 1)

    def visitor(self, pick: float) -> str | None:
        """Who follows a code or link that a system under test has made: somebody new, as a rule. They are taken from
        the other end, so that the story's own newcomers are the same whether there are such codes or not."""
        customers = self.columns.population.customers
        if pick < self._scenario.story.from_known_share and customers:
            return self.columns.ids.id(int(pick / self._scenario.story.from_known_share * customers))
        if self._last_newcomer <= self.next_newcomer:
            return None
        self._last_newcomer -= 1
        return self.columns.ids.id(self._last_newcomer)

    def _has_met(self, customer: int) -> bool:
        return customer < self.next_newcomer or customer >= self._last_newcomer

    def _happened(self, event: ContactChange) -> None:
        pair = (event.staff_id, event.customer_id)
        if event.change != "add" or pair in self._gained_pairs:
            return
        if self.world.acquaintances.relationship(*pair) is None:
            self._gained_pairs.add(pair)
            self.gained.append(pair)

    def store_of(self, staff_id: str) -> int:
        """Number of a staff member's store; the first one for who came later."""
        return self.columns.store_of(self.world.acquaintances.number_of(staff_id) or 0)

    def open_tags(self, start_s: int) -> list[str]:
        """Tags that the console made long ago; their ids."""
        book = self._corp.of(TagBook)
        tags: list[str] = []
        for group_name, names in self._scenario.tags.items():
            made = book.add(start_s - _LONG_AGO_S, [(name, 0) for name in names], app=CONSOLE, group_name=group_name)
            tags += [tag.id for tag in made[1]]
        return tags

    def open_groups(self, start_s: int) -> None:
        """Groups of long ago: their owner's customers, a colleague, and people who are nobody's friends."""
        population, columns = self.columns.population, self.columns
        outsiders = population.group_only
        if not outsiders:
            return
        per_group = population.group_size // 2
        groups, chance = self._corp.of(Groups), generator(self._corp.seed, self._corp.corp_id, "groups")
        ids = columns.ids.ids(np.arange(self.first_outsider, self.first_outsider + outsiders))
        owners = self.popular(chance.random(-(-outsiders // per_group))).tolist()
        founded = start_s - DAY_S - (chance.random(len(owners)) * _LONG_AGO_S).astype(np.int64)
        for number, (owner, founded_s) in enumerate(zip(owners, founded.tolist(), strict=True)):
            staff_id = columns.staff_ids[owner]
            first, end = columns.first_of_staff[owner], columns.first_of_staff[owner + 1]
            some = columns.customers[first : min(end, first + per_group)]
            colleague = self.colleague(staff_id, 0.5)
            groups.create(
                staff_id,
                [colleague, *columns.ids.ids(some), *ids[number * per_group : (number + 1) * per_group]],
                founded_s,
                name=f"会员福利群{number + 1}",
                tell=False,
            )
