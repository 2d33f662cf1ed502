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
import numpy.typing as npt

from simulator.scenario import CannotPlay, Plan
from simulator.scenario.diary import HALF_TO_CONFIRMED_S
from simulator.scenario.file import Burst, Scenario
from simulator.scenario.reactions import Reactions
from simulator.scenario.shopping import DAY_S, Cycles, Sale, Shop
from simulator.scenario.stretches import CHANCES, Column, Drawn, Numbers, Stretch, Verb, in_order
from simulator.world.acquisition import AcquisitionBook
from simulator.world.corp import Complaint, CorpWorld, Said
from simulator.world.groups import Groups
from simulator.world.idspace import generator
from simulator.world.notes import Notes
from simulator.world.opening import Channel, Channels, Columns, Opened, channels_of, id_of_unionid, make_columns, opened
from simulator.world.relations import MIN_GAP_S, Change, ContactChange
from simulator.world.roster import Roster
from simulator.world.schedule import Action
from simulator.world.tags import CONSOLE, TagBook
from simulator.world.ways import Ways
from siyu.events.business_time import business_day_start_ms

_MOST_STAFF = 99_999
"""Ids of staff have five digits, so that they sort as they are numbered."""
_LEAST_STRETCH_S = 10
_WAYS = 1 << 16
"""More than any channel has codes: kind and number of a way make one number."""
_LONG_AGO_S = 200 * DAY_S
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
            tells=lambda: {
                section: {corp_id: life.truth()[section] for corp_id, life in sorted(lives.items())}
                for section in ("effects", "shopping", "identities")
            },
            ends_s=start_s + scenario.story.duration_s,
            open_ended=not scenario.story.duration_s,
        )

    return plan


class Life:
    """What the people of one corp do."""

    def __init__(
        self, corp: CorpWorld, scenario: Scenario, world: Opened, *, start_s: int, scale: float, bill_lag_ms: int
    ) -> None:
        self._corp = corp
        self._scenario = scenario
        self._story = scenario.story
        self._world = world
        self._columns = world.columns
        self._scale = scale
        self._start_s = start_s
        self._end_s = start_s + self._story.duration_s if self._story.duration_s else 0
        population = world.columns.population
        self._first_outsider = population.customers
        self._next_newcomer = self._first_newcomer = population.customers + population.group_only
        self._greeted_newcomer = self._first_newcomer
        self._last_newcomer = self._columns.size
        self._shop_hours = self._story.hours == "shop" and self._story.pace == 1.0
        midnight_s = business_day_start_ms(start_s * 1000) // 1000
        self._day_zero_s = midnight_s if self._shop_hours else start_s
        # A burst's own code is a channel that nobody else comes by.
        self._burst_channels = [Channel(kind="live_code", share=0.0, state=burst.state) for burst in scenario.bursts]
        self._channels = channels_of(scenario.channels)
        self._ways = Channels([*self._channels.all, *self._burst_channels])
        self._gained: list[tuple[str, str]] = []
        """(staff, customer) of friendships made since the opening, each once."""
        self._gained_pairs: set[tuple[str, str]] = set()
        self._tags: list[str] = []
        self._cycles = Cycles(scenario.shopping, seed=corp.seed, corp_id=corp.corp_id)
        self._shop = Shop(
            corp,
            scenario.shopping,
            bill_lag_ms=bill_lag_ms,
            at=self._at,
            story_s=self._clock_s,
            colleague=self._colleague,
            anybody=self._anybody,
        )
        self._reactions = Reactions(
            corp, scenario.effects, at=self._at, story_s=self._clock_s, reply=self._talk, buy=self._buy_because
        )
        corp.happened.append(self._happened)
        corp.people.id_of_unionid = partial(id_of_unionid, world.identities, self._has_met)

    def begin(self, corp: int, corps: int) -> None:
        """Opens groups and tags, and plans the first stretch of corp number ``corp`` of so many.

        A burst upon some members of staff is the first corp's alone; the others are shared among all.
        """
        self._open_tags()
        self._open_groups()
        self._cycles.welcome(0, self._first_outsider)
        for number, burst in enumerate(self._scenario.bursts):
            count = max(1, round(burst.count * (self._scale if burst.scaled else 1.0)))
            if not (burst.staff or burst.kind == "scans"):
                count = count // corps + (corp < count % corps)
            elif corp:
                count = 0
            if count:
                self._at(self._start_s + burst.at_s, partial(self._burst, number, burst, count))
        self._stretch(self._start_s)

    def truth(self) -> dict[str, Any]:
        """What nobody but the world knows."""
        return {
            "effects": self._reactions.truth(),
            "shopping": {
                "items": [{"name": item.name, "cycle_days": item.cycle_days} for item in self._scenario.shopping.items],
                "sales": [asdict(sale) for sale in self._shop.sales],
            },
            "identities": self._world.identities.truth(),
        }

    # Time

    def _at(self, time_s: int, action: Action) -> None:
        """Does something later, unless the story is over by then: the world may live on, its people begin nothing."""
        if not self._end_s or time_s < self._end_s:
            self._corp.schedule.at(time_s, action)

    def _clock_s(self, story_s: float) -> int:
        """Seconds of the clock that so many seconds of the story take."""
        return round(story_s / self._story.pace)

    def _days(self, time_s: int) -> float:
        """Story days since its beginning (at shop hours: since that day's midnight)."""
        return (time_s - self._day_zero_s) * self._story.pace / DAY_S

    def _stretch(self, from_s: int) -> None:
        """Plans from ``from_s`` on, and to be called again where that ends."""
        if self._shop_hours:
            to_s = business_day_start_ms(from_s * 1000) // 1000 + DAY_S
        else:
            to_s = from_s + max(_LEAST_STRETCH_S, round(DAY_S / self._story.pace))
        if self._end_s:
            to_s = min(to_s, self._end_s)
        if to_s <= from_s:
            return
        shops, pace = self._shop_hours, self._story.pace
        days = 1.0 if shops else (to_s - from_s) * pace / DAY_S
        stretch = Stretch(self._corp.seed, self._corp.corp_id, self._start_s, from_s, to_s, days, shops)
        self._corp.schedule.feed(in_order([*self._wishes(stretch), *self._purchases(stretch)]))
        self._corp.schedule.feed(iter(self._visits(stretch)))
        self._at(to_s, self._stretch)

    def _wishes(self, stretch: Stretch) -> list[tuple[Verb, Drawn]]:
        """What people mean to do."""
        story, columns, draw = self._story, self._columns, stretch.draw
        staff, groups = len(columns.staff_ids), len(self._corp.of(Groups).all)
        old, new = len(columns.customers), len(self._gained)
        ways = self._channels

        def anybody(chance: np.random.Generator, count: int) -> Numbers:
            return self._popular(chance.random(count))

        def way(chance: np.random.Generator, count: int) -> Numbers:
            chosen = ways.pick(chance, count)
            return chosen.kinds.astype(np.int64) * _WAYS + chosen.numbers

        wishes: list[tuple[Verb, Drawn]] = [
            (self._add, draw("add", story.adds_per_staff * staff, anybody, way)),
            (self._leave, draw("leave", story.leavers_per_1000 / 1000 * staff, _below(staff))),
        ]
        # Friends of the opening and those won since are drawn apart, so that the new ones, whom a system under test
        # may have helped to win, move nothing of the others.
        for age, first, count in (("old", 0, old), ("new", old, new)):
            if count:
                pair, part = _below(count, first), count / (old + new)
                wishes += [
                    (self._delete, draw(f"left by {age}", story.deleted_by_customer_per_1000 / 1000 * count, pair)),
                    (self._delete, draw(f"drop {age}", story.deleted_by_staff_per_1000 / 1000 * count, pair, _ones)),
                    (self._edit, draw(f"edit {age}", story.edits_per_staff * staff * part, pair)),
                    (self._chat, draw(f"chat {age}", story.chats_per_staff * staff * part, pair)),
                    (self._complain, draw(f"complain {age}", story.complaints_per_million / 1e6 * count, pair)),
                ]
        if groups:
            wishes += [
                (self._join_group, draw("join", story.group_joins * groups, _below(groups))),
                (self._quit_group, draw("quit", story.group_quits * groups, _below(groups))),
            ]
        return wishes

    def _purchases(self, stretch: Stretch) -> list[tuple[Verb, Drawn]]:
        """What cycles have fall due, and what strangers buy."""
        shopping = self._scenario.shopping
        if not shopping.items:
            return []
        if self._next_newcomer > self._greeted_newcomer:
            self._cycles.welcome(self._greeted_newcomer, self._next_newcomer)
            self._greeted_newcomer = self._next_newcomer
        if self._shop_hours:
            day = float(math.floor(self._days(stretch.from_s)))
            due = self._cycles.due(day, day + 1.0)
            times = stretch.times(stretch.chance("hours of purchases"), len(due.days))
        else:
            due = self._cycles.due(self._days(stretch.from_s), self._days(stretch.to_s))
            times = self._day_zero_s + np.floor(due.days * (DAY_S / self._story.pace)).astype(np.int64)
        own = stretch.given("buy", times, np.column_stack((due.customers, due.items, due.numbers)))
        strangers = shopping.stranger_share * len(own.times) / stretch.days
        return [
            (self._buy, own),
            (self._buy_as_stranger, stretch.draw("strangers", strangers, _counted, _below(len(shopping.items)))),
        ]

    def _visits(self, stretch: Stretch) -> list[tuple[int, Action]]:
        """Who comes by codes and links that were made through the API before this stretch."""
        story, corp = self._story, self._corp
        steps: list[tuple[int, Action]] = []
        for kind, ids, a_day, comes in (
            ("code", corp.of(Ways).listed(0, stretch.from_s, None, _MOST_CODES)[0], story.code_scans, self._scan_code),
            ("link", list(corp.of(AcquisitionBook).links)[:_MOST_CODES], story.link_visits, self._visit_link),
            ("join way", list(corp.of(Groups).ways)[:_MOST_CODES], story.join_way_scans, self._scan_join_way),
        ):
            drawn = stretch.draw(kind, a_day * len(ids), _below(len(ids)))
            steps += [
                (at_s, partial(comes, ids[which], chances[0]))
                for at_s, (which, _, _), chances in zip(
                    drawn.times.tolist(), drawn.numbers.tolist(), drawn.chances.tolist(), strict=True
                )
            ]
        return sorted(steps, key=lambda step: step[0])

    # Who

    def _popular(self, picks: npt.NDArray[np.float64]) -> Numbers:
        popularity = self._columns.popularity
        at = np.searchsorted(popularity, picks * popularity[-1], side="right")
        return np.asarray(np.minimum(at, len(popularity) - 1), np.int64)

    def _anybody(self, pick: float) -> str:
        return self._columns.staff_ids[int(self._popular(np.array([pick]))[0])]

    def _colleague(self, staff_id: str, pick: float) -> str:
        """Somebody else of the store, who still works there; the member themselves where there is nobody."""
        staff_ids = self._columns.staff_ids
        number = self._world.acquaintances.number_of(staff_id)
        if number is None:
            return staff_id
        size = self._columns.population.staff_per_store
        first = number // size * size
        others = [
            other
            for other in staff_ids[first : first + size]
            if other != staff_id and not self._corp.people.staff[other].left_s
        ]
        return others[int(pick * len(others))] if others else staff_id

    def _pair(self, position: int) -> tuple[str, str]:
        columns = self._columns
        if position < len(columns.customers):
            staff_id = columns.staff_ids[columns.staff[position]]
            return staff_id, columns.ids.id(int(columns.customers[position]))
        return self._gained[position - len(columns.customers)]

    def _newcomer(self) -> str | None:
        """Somebody who knows nobody yet; None when all have come."""
        if self._next_newcomer >= self._last_newcomer:
            return None
        self._next_newcomer += 1
        return self._columns.ids.id(self._next_newcomer - 1)

    def _visitor(self, pick: float) -> str | None:
        """Who follows a code or link that a system under test has made: somebody new, as a rule. They are taken from
        the other end, so that the story's own newcomers are the same whether there are such codes or not."""
        customers = self._columns.population.customers
        if pick < self._story.from_known_share and customers:
            return self._columns.ids.id(int(pick / self._story.from_known_share * customers))
        if self._last_newcomer <= self._next_newcomer:
            return None
        self._last_newcomer -= 1
        return self._columns.ids.id(self._last_newcomer)

    def _has_met(self, customer: int) -> bool:
        return customer < self._next_newcomer or customer >= self._last_newcomer

    def _happened(self, event: ContactChange) -> None:
        pair = (event.staff_id, event.customer_id)
        if event.change != "add" or pair in self._gained_pairs:
            return
        if self._world.acquaintances.relationship(*pair) is None:
            self._gained_pairs.add(pair)
            self._gained.append(pair)

    # What they do

    def _change(self, change: Change, staff_id: str, customer_id: str, time_s: int, **more: Any) -> bool:
        return self._corp.happen(ContactChange(time_s, self._corp.corp_id, staff_id, customer_id, change, **more))

    def _add(self, staff: int, way: int, _: int, chances: list[float], time_s: int) -> None:
        story, population = self._story, self._columns.population
        staff_id = self._columns.staff_ids[staff]
        if not self._corp.people.staff[staff_id].may_reach(time_s):
            return
        who, half, fate, greeting = chances
        customer_id: str | None = None
        if who < story.from_known_share:
            if population.customers:
                customer_id = self._columns.ids.id(int(who / story.from_known_share * population.customers))
        elif who < story.from_known_share + story.from_groups_share:
            if population.group_only:
                nth = int((who - story.from_known_share) / story.from_groups_share * population.group_only)
                customer_id = self._columns.ids.id(self._first_outsider + nth)
        else:
            customer_id = self._newcomer()
        if customer_id is None:
            return
        kind, number = divmod(way, _WAYS)
        channel = self._ways.all[kind]
        told = {
            "state": self._ways.state(kind, number, self._columns.store_of(staff)),
            "welcome": greeting < channel.welcome,
            "add_way": channel.add_way,
        }
        if half >= story.half_share:
            self._change("add", staff_id, customer_id, time_s, **told)
        elif self._change("add_half", staff_id, customer_id, time_s, **told) and fate < story.half_confirmed_share:
            # Whoever answers half adds needs a while, or the code of the add would already be no use.
            waits_s = max(HALF_TO_CONFIRMED_S, self._clock_s(3_600 * -math.log(1.0 - greeting)))
            self._at(time_s + waits_s, partial(self._later, "add", staff_id, customer_id, told))

    def _later(self, change: Change, staff_id: str, customer_id: str, told: dict[str, Any], time_s: int) -> None:
        self._change(change, staff_id, customer_id, time_s, **told)

    def _delete(self, position: int, by_staff: int, _: int, chances: list[float], time_s: int) -> None:
        staff_id, customer_id = self._pair(position)
        pair = self._corp.relations.get(staff_id, customer_id)
        if pair is None or not pair.friend:
            return
        first: Change = "delete_by_staff" if by_staff else "delete_by_customer"
        second: Change = "delete_by_customer" if by_staff else "delete_by_staff"
        if not self._change(first, staff_id, customer_id, time_s):
            return
        story = self._story
        waits_s = max(MIN_GAP_S, self._clock_s(story.return_median_days * DAY_S * -math.log2(1.0 - chances[1])))
        if chances[0] < story.second_deletion_share:
            self._at(time_s + waits_s, partial(self._later, second, staff_id, customer_id, {}))
        elif chances[0] < story.second_deletion_share + story.return_share:
            edges = np.cumsum([channel.share for channel in self._channels.all])
            kind = min(int(np.searchsorted(edges, chances[2] * edges[-1])), len(edges) - 1)
            channel = self._channels.all[kind]
            told = {
                "state": self._ways.state(kind, int(chances[3] * channel.numbers), self._store(staff_id)),
                "welcome": chances[3] < channel.welcome,
                "add_way": channel.add_way,
            }
            self._at(time_s + waits_s, partial(self._later, "add", staff_id, customer_id, told))

    def _store(self, staff_id: str) -> int:
        return self._columns.store_of(self._world.acquaintances.number_of(staff_id) or 0)

    def _edit(self, position: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        """A remark, the phone number as far as the member knows it, or a tag."""
        staff_id, customer_id = self._pair(position)
        notes = self._corp.of(Notes)
        if self._tags and chances[0] < 0.6:
            tag = self._tags[int(chances[1] * len(self._tags))]
            worn = tag in notes.get(staff_id, customer_id).tags
            notes.edit_in_client(
                time_s, staff_id, customer_id, add_tags=() if worn else (tag,), remove_tags=(tag,) if worn else ()
            )
            return
        index = self._columns.ids.index(customer_id)
        phone = self._world.identities.signs(index).phone if index is not None else ""
        name = self._corp.people.customer(customer_id).name
        notes.edit_in_client(
            time_s, staff_id, customer_id, remark=f"{name} {chances[2]:.2f}"[:20], mobiles=[phone] if phone else None
        )

    def _chat(self, position: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        self._converse(*self._pair(position), time_s, chances)

    def _talk(self, staff_id: str, customer_id: str, time_s: int) -> bool:
        """A customer replies to a touch."""
        chance = self._corp.random("answer", staff_id, customer_id, time_s)
        return self._converse(staff_id, customer_id, time_s, [chance.random(), chance.random()])

    def _converse(self, staff_id: str, customer_id: str, time_s: int, chances: Sequence[float]) -> bool:
        """A customer writes, and is answered or not; False when they cannot write to each other any more."""
        pair = self._corp.relations.get(staff_id, customer_id)
        if pair is None or not pair.friend:
            return False
        self._corp.say(Said(time_s, staff_id, customer_id, True))
        if chances[0] < self._story.answered_share:
            waits_s = max(1, self._clock_s(self._story.answer_median_s * -math.log2(1.0 - chances[1])))
            self._at(time_s + waits_s, partial(self._answer, staff_id, customer_id))
        return True

    def _answer(self, staff_id: str, customer_id: str, time_s: int) -> None:
        pair = self._corp.relations.get(staff_id, customer_id)
        if pair is not None and pair.friend and not self._corp.people.staff[staff_id].left_s:
            self._corp.say(Said(time_s, staff_id, customer_id, False))

    def _complain(self, position: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        staff_id, customer_id = self._pair(position)
        self._corp.complain(Complaint(time_s, staff_id, customer_id))

    def _leave(self, staff: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        self._corp.of(Roster).leave(self._columns.staff_ids[staff], time_s)

    def _buy(self, customer: int, item: int, number: int, chances: list[float], time_s: int) -> None:
        customer_id = self._columns.ids.id(customer)
        depletes = self._cycles.depletes_on(customer, item, number)
        depletes_s = self._day_zero_s + round(depletes * DAY_S / self._story.pace)
        sale = self._shop.sell(time_s, customer_id, item, f"own|{number}", depletes_s=depletes_s)
        self._reactions.bought(customer_id, sale)

    def _buy_as_stranger(self, serial: int, item: int, _: int, chances: list[float], time_s: int) -> None:
        self._shop.sell(time_s, "", item, f"stranger|{time_s - self._start_s}|{serial}")

    def _buy_in_burst(self, position: int, _: int, serial: int, chances: list[float], time_s: int) -> None:
        _staff_id, customer_id = self._pair(position)
        index = self._columns.ids.index(customer_id)
        sale = self._shop.sell(
            time_s, customer_id, self._cycles.item_of(index or 0), f"burst|{time_s - self._start_s}|{serial}"
        )
        self._reactions.bought(customer_id, sale)

    def _buy_because(self, customer_id: str, cause: str, time_s: int) -> Sale:
        index = self._columns.ids.index(customer_id)
        return self._shop.sell(time_s, customer_id, self._cycles.item_of(index or 0), f"touch|{cause}")

    def _scan_code(self, config_id: str, who: float, time_s: int) -> None:
        customer_id = self._visitor(who)
        if customer_id is not None:
            change = self._corp.of(Ways).scan(config_id, customer_id, time_s)
            if change is not None:
                self._corp.happen(change)

    def _visit_link(self, link_id: str, who: float, time_s: int) -> None:
        customer_id = self._visitor(who)
        if customer_id is not None:
            channel = self._channels.pick(generator(self._corp.seed, link_id, customer_id), 1)
            state = self._channels.state(int(channel.kinds[0]), int(channel.numbers[0]), 0)
            self._corp.of(AcquisitionBook).visit(link_id, customer_id, state, time_s)

    def _scan_join_way(self, config_id: str, who: float, time_s: int) -> None:
        customer_id = self._visitor(who)
        if customer_id is not None:
            self._corp.of(Groups).scan_way(config_id, customer_id, time_s)

    def _join_group(self, number: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        groups = self._corp.of(Groups)
        group = groups.all[number]
        if group.dismissed_s:
            return
        if chances[0] < 0.5 and (customers := self._corp.relations.count_of(group.now.owner)):
            of_owner = self._corp.relations.customers_of(group.now.owner)
            customer_id = of_owner[int(chances[1] * customers) % len(of_owner)]
        else:
            newcomer = self._newcomer()
            if newcomer is None:
                return
            customer_id = newcomer
        if chances[2] < 0.5:
            groups.scan(group.chat_id, customer_id, time_s)
        else:
            groups.invite(group.chat_id, [customer_id], group.now.owner, time_s, link=chances[2] < 0.7)

    def _quit_group(self, number: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        groups = self._corp.of(Groups)
        group = groups.all[number]
        outsiders = [member for member in group.now.members if member not in self._corp.people.staff]
        if outsiders and not group.dismissed_s:
            member = outsiders[int(chances[0] * len(outsiders))]
            if chances[1] < 0.8:
                groups.quit(group.chat_id, member, time_s)
            else:
                groups.remove(group.chat_id, [member], time_s)

    # Much at once

    def _burst(self, number: int, burst: Burst, count: int, time_s: int) -> None:
        columns = self._columns
        chance = generator(self._corp.seed, self._corp.corp_id, "burst", number, time_s - self._start_s)
        staff = len(columns.staff_ids)
        pool = np.arange(staff)
        if burst.staff or burst.kind == "scans":
            pool = chance.permutation(staff)[: max(1, min(burst.staff, staff))]
        times = np.full(count, time_s) if burst.kind == "scans" else time_s + chance.integers(0, burst.seconds, count)
        members = pool[chance.integers(0, len(pool), count)]
        numbers = np.zeros((count, 3), np.int64)
        verb: Verb
        if burst.kind in ("scans", "adds"):
            verb = self._scan if burst.kind == "scans" else self._add
            numbers[:, 0] = members
            numbers[:, 1] = (len(self._channels.all) + number) * _WAYS
            if not burst.state:
                chosen = self._channels.pick(chance, count)
                numbers[:, 1] = chosen.kinds.astype(np.int64) * _WAYS + chosen.numbers
        else:
            verb = {
                "edits": self._edit,
                "complaints": self._complain,
                "deletions": self._delete,
                "purchases": self._buy_in_burst,
            }[burst.kind]
            first, end = columns.first_of_staff[members], columns.first_of_staff[members + 1]
            having = end > first
            numbers[:, 0] = first + (chance.random(count) * (end - first)).astype(np.int64)
            if burst.kind == "purchases":
                numbers[:, 2] = np.arange(count)
            times, numbers = times[having], numbers[having]
        drawn = Drawn(times, numbers, chance.random((len(times), CHANCES)))
        if self._end_s:
            drawn = drawn.only(times < self._end_s)
        self._corp.schedule.feed(in_order([(verb, drawn)]))
        again_s = time_s + burst.every_s
        if burst.every_s:
            self._at(again_s, partial(self._burst, number, burst, count))

    def _scan(self, staff: int, way: int, _: int, chances: list[float], time_s: int) -> None:
        """One of those who scan a poster in one second: never by half, never without a code."""
        customer_id = self._newcomer()
        if customer_id is not None:
            kind, number = divmod(way, _WAYS)
            state = self._ways.state(kind, number, self._columns.store_of(staff))
            staff_id = self._columns.staff_ids[staff]
            self._change("add", staff_id, customer_id, time_s, state=state, welcome=True, add_way=1)

    # What there was before

    def _open_tags(self) -> None:
        book = self._corp.of(TagBook)
        for group_name, names in self._scenario.tags.items():
            made = book.add(
                self._start_s - _LONG_AGO_S, [(name, 0) for name in names], app=CONSOLE, group_name=group_name
            )
            self._tags += [tag.id for tag in made[1]]

    def _open_groups(self) -> None:
        """Groups of long ago: their owner's customers, a colleague, and people who are nobody's friends."""
        population, columns = self._columns.population, self._columns
        outsiders = population.group_only
        if not outsiders:
            return
        per_group = population.group_size // 2
        groups, chance = self._corp.of(Groups), generator(self._corp.seed, self._corp.corp_id, "groups")
        ids = columns.ids.ids(np.arange(self._first_outsider, self._first_outsider + outsiders))
        owners = self._popular(chance.random(-(-outsiders // per_group))).tolist()
        founded = self._start_s - DAY_S - (chance.random(len(owners)) * _LONG_AGO_S).astype(np.int64)
        for number, (owner, founded_s) in enumerate(zip(owners, founded.tolist(), strict=True)):
            staff_id = columns.staff_ids[owner]
            first, end = columns.first_of_staff[owner], columns.first_of_staff[owner + 1]
            some = columns.customers[first : min(end, first + per_group)]
            colleague = self._colleague(staff_id, 0.5)
            groups.create(
                staff_id,
                [colleague, *columns.ids.ids(some), *ids[number * per_group : (number + 1) * per_group]],
                founded_s,
                name=f"会员福利群{number + 1}",
                tell=False,
            )


def _below(count: int, first: int = 0) -> Column:
    """Whole numbers from ``first`` on, so many different ones."""
    return lambda chance, size: first + (chance.random(size) * count).astype(np.int64)


def _ones(_: np.random.Generator, size: int) -> Numbers:
    return np.ones(size, np.int64)


def _counted(_: np.random.Generator, size: int) -> Numbers:
    return np.arange(size)
