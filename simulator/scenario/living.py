"""A living world: what people do from the story's first second on, drawn stretch by stretch for everybody at once.

A stretch is a business day at the real pace, and a story day (ten seconds at least) when the story runs faster. What
happens in it is drawn as columns from the seed and the stretch alone and fed to the schedule in order of time, so that
eight million customers need no object. Whether a thing can happen is asked of the world when it is due: the platform's
state machine, bans, caps and the scale decide. Chance never depends on what a system under test does, only what comes
of it may.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from simulator.scenario import CannotPlay, Plan
from simulator.scenario.crowd import Crowd
from simulator.scenario.deeds import WAYS, Deeds
from simulator.scenario.file import Burst, Scenario
from simulator.scenario.shopping import Cycles
from simulator.scenario.story_time import DAY_S, StoryTime
from simulator.scenario.stretches import CHANCES, Column, Drawn, Numbers, Stretch, Verb, in_order
from simulator.world.acquisition import AcquisitionBook
from simulator.world.corp import CorpWorld
from simulator.world.groups import Groups
from simulator.world.idspace import generator
from simulator.world.opening import Columns, Opened, make_columns, opened
from simulator.world.schedule import Action
from simulator.world.ways import Ways
from siyu.events.business_time import business_day_start_ms

_MOST_STAFF = 99_999
"""Ids of staff have five digits, so that they sort as they are numbered."""
_LEAST_STRETCH_S = 10
_TOLD = ("effects", "shopping", "identities")
"""Sections of the truth that a living world adds."""
_MOST_CODES = 10_000
"""Of the codes that were made through the API so many are followed, the oldest."""


def planner_of(
    scenario: Scenario, *, seed: int, scale: float, corps: Sequence[str], bill_lag_ms: int
) -> Callable[[int], Plan]:
    """Plans for any start (epoch seconds); who knows whom is decided once. Raises CannotPlay."""
    if scenario.population is None:
        raise CannotPlay(f"scenario {scenario.name}: has no population")
    everybody = scenario.population.scaled(scale)
    if everybody.staff + len(corps) > _MOST_STAFF:
        raise CannotPlay(f"SIYU_SIM_SCALE={scale}: {everybody.staff} staff members, {_MOST_STAFF} at most")
    worlds: dict[str, Columns] = {}
    first_number = 1
    for number, corp_id in enumerate(corps):
        part = everybody.of_corp(number, len(corps))
        worlds[corp_id] = make_columns(seed, corp_id, part, scenario.channels, first_number=first_number)
        first_number += part.staff

    def plan(start_s: int) -> Plan:
        openings = {corp_id: opened(seed, corp_id, columns, start_s) for corp_id, columns in worlds.items()}
        lives: dict[str, Life] = {}

        def animate(worlds: Mapping[str, CorpWorld]) -> None:
            for number, corp_id in enumerate(corps):
                lives[corp_id] = life = Life(
                    worlds[corp_id], scenario, openings[corp_id], start_s=start_s, scale=scale, bill_lag_ms=bill_lag_ms
                )
                life.begin(number, len(corps))

        def tells() -> Mapping[str, Any]:
            told = {corp_id: life.truth() for corp_id, life in sorted(lives.items())}
            return {section: {corp_id: of[section] for corp_id, of in told.items()} for section in _TOLD}

        return Plan(
            scenario=scenario.name,
            seed=seed,
            corps=tuple(corps),
            staff={corp_id: columns.staff_ids for corp_id, columns in worlds.items()},
            customers={corp_id: frozenset() for corp_id in corps},
            contacts=(),
            others=(),
            bills=(),
            openings={corp_id: world.acquaintances for corp_id, world in openings.items()},
            people={corp_id: world.people for corp_id, world in openings.items()},
            rules=scenario.platform,
            animate=animate,
            tells=tells,
            ends_s=start_s + scenario.story.duration_s,
            open_ended=not scenario.story.duration_s,
        )

    return plan


class Life:
    """What the people of one corp do, planned stretch by stretch."""

    def __init__(
        self, corp: CorpWorld, scenario: Scenario, world: Opened, *, start_s: int, scale: float, bill_lag_ms: int
    ) -> None:
        self._corp = corp
        self._scenario = scenario
        self._story = scenario.story
        self._scale = scale
        self._time = StoryTime(scenario.story, start_s, corp.schedule)
        self._crowd = Crowd(corp, scenario, world)
        self._columns = world.columns
        self._cycles = Cycles(scenario.shopping, seed=corp.seed, corp_id=corp.corp_id)
        self._greeted_newcomer = self._crowd.first_newcomer
        self._deeds = Deeds(corp, scenario, self._crowd, self._time, self._cycles, bill_lag_ms=bill_lag_ms)

    def begin(self, corp: int, corps: int) -> None:
        """Opens groups and tags, and plans the first stretch of corp number ``corp`` of so many.

        A burst upon some members of staff is the first corp's alone; the others are shared among all.
        """
        self._deeds.tags = self._crowd.open_tags(self._time.start_s)
        self._crowd.open_groups(self._time.start_s)
        self._cycles.welcome(0, self._crowd.first_outsider)
        for number, burst in enumerate(self._scenario.bursts):
            count = max(1, round(burst.count * (self._scale if burst.scaled else 1.0)))
            if not (burst.staff or burst.kind == "scans"):
                count = count // corps + (corp < count % corps)
            elif corp:
                count = 0
            if count:
                self._time.at(self._time.start_s + burst.at_s, partial(self._burst, number, burst, count))
        self._stretch(self._time.start_s)

    def truth(self) -> dict[str, Any]:
        """What nobody but the world knows."""
        return {
            "effects": self._deeds.reactions.truth(),
            "shopping": {
                "items": [{"name": item.name, "cycle_days": item.cycle_days} for item in self._scenario.shopping.items],
                "sales": [asdict(sale) for sale in self._deeds.shop.sales],
            },
            "identities": self._crowd.world.identities.truth(),
        }

    def _stretch(self, from_s: int) -> None:
        """Plans from ``from_s`` on, and to be called again where that ends."""
        if self._time.shop_hours:
            to_s = business_day_start_ms(from_s * 1000) // 1000 + DAY_S
        else:
            to_s = from_s + max(_LEAST_STRETCH_S, round(DAY_S / self._story.pace))
        if self._time.end_s:
            to_s = min(to_s, self._time.end_s)
        if to_s <= from_s:
            return
        shops, pace = self._time.shop_hours, self._story.pace
        days = 1.0 if shops else (to_s - from_s) * pace / DAY_S
        stretch = Stretch(self._corp.seed, self._corp.corp_id, self._time.start_s, from_s, to_s, days, shops)
        self._corp.schedule.feed(in_order([*self._wishes(stretch), *self._purchases(stretch)]))
        self._corp.schedule.feed(iter(self._visits(stretch)))
        self._time.at(to_s, self._stretch)

    def _wishes(self, stretch: Stretch) -> list[tuple[Verb, Drawn]]:
        """What people mean to do."""
        deeds = self._deeds
        story, columns, draw = self._story, self._columns, stretch.draw
        staff, groups = len(columns.staff_ids), len(self._corp.of(Groups).all)
        old, new = len(columns.customers), len(self._crowd.gained)
        ways = self._deeds.channels

        def anybody(chance: np.random.Generator, count: int) -> Numbers:
            return self._crowd.popular(chance.random(count))

        def way(chance: np.random.Generator, count: int) -> Numbers:
            chosen = ways.pick(chance, count)
            return chosen.kinds.astype(np.int64) * WAYS + chosen.numbers

        wishes: list[tuple[Verb, Drawn]] = [
            (deeds.add, draw("add", story.adds_per_staff * staff, anybody, way)),
            (deeds.leave, draw("leave", story.leavers_per_1000 / 1000 * staff, _below(staff))),
        ]
        # Friends of the opening and those won since are drawn apart, so that the new ones, whom a system under test
        # may have helped to win, move nothing of the others.
        for age, first, count in (("old", 0, old), ("new", old, new)):
            if count:
                pair, part = _below(count, first), count / (old + new)
                wishes += [
                    (deeds.delete, draw(f"left by {age}", story.deleted_by_customer_per_1000 / 1000 * count, pair)),
                    (deeds.delete, draw(f"drop {age}", story.deleted_by_staff_per_1000 / 1000 * count, pair, _ones)),
                    (deeds.edit, draw(f"edit {age}", story.edits_per_staff * staff * part, pair)),
                    (deeds.chat, draw(f"chat {age}", story.chats_per_staff * staff * part, pair)),
                    (deeds.complain, draw(f"complain {age}", story.complaints_per_million / 1e6 * count, pair)),
                ]
        if groups:
            wishes += [
                (deeds.join_group, draw("join", story.group_joins * groups, _below(groups))),
                (deeds.quit_group, draw("quit", story.group_quits * groups, _below(groups))),
            ]
        return wishes

    def _purchases(self, stretch: Stretch) -> list[tuple[Verb, Drawn]]:
        """What cycles have fall due, and what strangers buy."""
        shopping, deeds = self._scenario.shopping, self._deeds
        if not shopping.items:
            return []
        if self._crowd.next_newcomer > self._greeted_newcomer:
            self._cycles.welcome(self._greeted_newcomer, self._crowd.next_newcomer)
            self._greeted_newcomer = self._crowd.next_newcomer
        if self._time.shop_hours:
            day = float(math.floor(self._time.days(stretch.from_s)))
            due = self._cycles.due(day, day + 1.0)
            times = stretch.times(stretch.chance("hours of purchases"), len(due.days))
        else:
            due = self._cycles.due(self._time.days(stretch.from_s), self._time.days(stretch.to_s))
            times = self._time.zero_s + np.floor(due.days * (DAY_S / self._story.pace)).astype(np.int64)
        own = stretch.given("buy", times, np.column_stack((due.customers, due.items, due.numbers)))
        strangers = shopping.stranger_share * len(own.times) / stretch.days
        return [
            (deeds.buy, own),
            (deeds.buy_as_stranger, stretch.draw("strangers", strangers, _counted, _below(len(shopping.items)))),
        ]

    def _visits(self, stretch: Stretch) -> list[tuple[int, Action]]:
        """Who comes by codes and links that were made through the API before this stretch."""
        story, corp, deeds = self._story, self._corp, self._deeds
        steps: list[tuple[int, Action]] = []
        for kind, ids, a_day, comes in (
            ("code", corp.of(Ways).listed(0, stretch.from_s, None, _MOST_CODES)[0], story.code_scans, deeds.scan_code),
            ("link", list(corp.of(AcquisitionBook).links)[:_MOST_CODES], story.link_visits, deeds.visit_link),
            ("join way", list(corp.of(Groups).ways)[:_MOST_CODES], story.join_way_scans, deeds.scan_join_way),
        ):
            drawn = stretch.draw(kind, a_day * len(ids), _below(len(ids)))
            steps += [
                (at_s, partial(comes, ids[which], chances[0]))
                for at_s, (which, _, _), chances in zip(
                    drawn.times.tolist(), drawn.numbers.tolist(), drawn.chances.tolist(), strict=True
                )
            ]
        return sorted(steps, key=lambda step: step[0])

    def _burst(self, number: int, burst: Burst, count: int, time_s: int) -> None:
        columns, deeds = self._columns, self._deeds
        chance = generator(self._corp.seed, self._corp.corp_id, "burst", number, time_s - self._time.start_s)
        staff = len(columns.staff_ids)
        pool = np.arange(staff)
        if burst.staff or burst.kind == "scans":
            pool = chance.permutation(staff)[: max(1, min(burst.staff, staff))]
        times = np.full(count, time_s) if burst.kind == "scans" else time_s + chance.integers(0, burst.seconds, count)
        members = pool[chance.integers(0, len(pool), count)]
        numbers = np.zeros((count, 3), np.int64)
        verb: Verb
        if burst.kind in ("scans", "adds"):
            verb = deeds.scan if burst.kind == "scans" else deeds.add
            numbers[:, 0] = members
            numbers[:, 1] = deeds.burst_way(number)
            if not burst.state:
                chosen = self._deeds.channels.pick(chance, count)
                numbers[:, 1] = chosen.kinds.astype(np.int64) * WAYS + chosen.numbers
        else:
            verb = {
                "edits": deeds.edit,
                "complaints": deeds.complain,
                "deletions": deeds.delete,
                "purchases": deeds.buy_in_burst,
            }[burst.kind]
            first, end = columns.first_of_staff[members], columns.first_of_staff[members + 1]
            having = end > first
            numbers[:, 0] = first + (chance.random(count) * (end - first)).astype(np.int64)
            if burst.kind == "purchases":
                numbers[:, 2] = np.arange(count)
            times, numbers = times[having], numbers[having]
        drawn = Drawn(times, numbers, chance.random((len(times), CHANCES)))
        if self._time.end_s:
            drawn = drawn.only(times < self._time.end_s)
        self._corp.schedule.feed(in_order([(verb, drawn)]))
        again_s = time_s + burst.every_s
        if burst.every_s:
            self._time.at(again_s, partial(self._burst, number, burst, count))


def _below(count: int, first: int = 0) -> Column:
    """Whole numbers from ``first`` on, so many different ones."""
    return lambda chance, size: first + (chance.random(size) * count).astype(np.int64)


def _ones(_: np.random.Generator, size: int) -> Numbers:
    return np.ones(size, np.int64)


def _counted(_: np.random.Generator, size: int) -> Numbers:
    return np.arange(size)
