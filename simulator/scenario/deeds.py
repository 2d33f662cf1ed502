"""What people do, one thing at a time: what was drawn for somebody becomes a change of the world, if it still can.

Public methods are verbs: three numbers that say who and what (``stretches.Verb``), or the id of a code and a number
between 0 and 1 that says who follows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from simulator.scenario.crowd import Crowd
from simulator.scenario.diary import HALF_TO_CONFIRMED_S
from simulator.scenario.file import Scenario
from simulator.scenario.reactions import Reactions
from simulator.scenario.shopping import Cycles, Sale, Shop
from simulator.scenario.story_time import DAY_S, StoryTime
from simulator.world.acquisition import AcquisitionBook
from simulator.world.corp import Complaint, CorpWorld, Said
from simulator.world.groups import Groups
from simulator.world.idspace import generator
from simulator.world.notes import Notes
from simulator.world.opening import Channel, Channels, channels_of
from simulator.world.relations import MIN_GAP_S, Change, ContactChange
from simulator.world.roster import Roster
from simulator.world.ways import Ways

WAYS = 1 << 16
"""More than any channel has codes: kind and number of a way make one number."""

_CONFIRMED_S = 3_600
"""Mean time until a half add is confirmed, story time."""
_APART = 1_009
"""Makes a second number between 0 and 1 of a first one."""


class Deeds:
    """The verbs of one corp's people."""

    def __init__(
        self, corp: CorpWorld, scenario: Scenario, crowd: Crowd, time: StoryTime, cycles: Cycles, *, bill_lag_ms: int
    ) -> None:
        self._corp = corp
        self._story = scenario.story
        self._crowd = crowd
        self._columns = crowd.columns
        self._time = time
        self._cycles = cycles
        self.channels = channels_of(scenario.channels)
        # A burst's own code is a channel that nobody else comes by.
        of_bursts = [Channel(kind="live_code", share=0.0, state=burst.state) for burst in scenario.bursts]
        self._ways = Channels([*self.channels.all, *of_bursts])
        self.tags: list[str] = []
        """Ids of corp tags that staff put on."""
        self.shop = Shop(
            corp,
            scenario.shopping,
            bill_lag_ms=bill_lag_ms,
            at=time.at,
            story_s=time.clock_s,
            colleague=crowd.colleague,
            anybody=crowd.anybody,
        )
        self.reactions = Reactions(
            corp, scenario.effects, at=time.at, story_s=time.clock_s, reply=self._talk, buy=self._buy_because
        )

    def burst_way(self, number: int) -> int:
        """The code of a burst of its own."""
        return (len(self.channels.all) + number) * WAYS

    def scan(self, staff: int, way: int, _: int, chances: list[float], time_s: int) -> None:
        """One of those who scan a poster in one second: never by half, never without a code."""
        customer_id = self._crowd.newcomer()
        if customer_id is not None:
            kind, number = divmod(way, WAYS)
            state = self._ways.state(kind, number, self._columns.store_of(staff))
            staff_id = self._columns.staff_ids[staff]
            self._change("add", staff_id, customer_id, time_s, state=state, welcome=True, add_way=1)

    def _change(self, change: Change, staff_id: str, customer_id: str, time_s: int, **more: Any) -> bool:
        return self._corp.happen(ContactChange(time_s, self._corp.corp_id, staff_id, customer_id, change, **more))

    def add(self, staff: int, way: int, _: int, chances: list[float], time_s: int) -> None:
        story, population = self._story, self._columns.population
        staff_id = self._columns.staff_ids[staff]
        member = self._corp.people.staff.get(staff_id)
        if member is None or not member.may_reach(time_s):
            return
        who, half, fate, greeting = chances
        customer_id: str | None = None
        if who < story.from_known_share:
            if population.customers:
                customer_id = self._columns.ids.id(int(who / story.from_known_share * population.customers))
        elif who < story.from_known_share + story.from_groups_share:
            if population.group_only:
                nth = int((who - story.from_known_share) / story.from_groups_share * population.group_only)
                customer_id = self._columns.ids.id(self._crowd.first_outsider + nth)
        else:
            customer_id = self._crowd.newcomer()
        if customer_id is None:
            return
        kind, number = divmod(way, WAYS)
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
            wait = -math.log(1.0 - fate / story.half_confirmed_share)
            waits_s = max(HALF_TO_CONFIRMED_S, self._time.clock_s(_CONFIRMED_S * wait))
            self._time.at(time_s + waits_s, partial(self._later, "add", staff_id, customer_id, told))

    def _later(self, change: Change, staff_id: str, customer_id: str, told: dict[str, Any], time_s: int) -> None:
        self._change(change, staff_id, customer_id, time_s, **told)

    def delete(self, position: int, by_staff: int, _: int, chances: list[float], time_s: int) -> None:
        staff_id, customer_id = self._crowd.pair(position)
        pair = self._corp.relations.get(staff_id, customer_id)
        if pair is None or not pair.friend:
            return
        first: Change = "delete_by_staff" if by_staff else "delete_by_customer"
        second: Change = "delete_by_customer" if by_staff else "delete_by_staff"
        if not self._change(first, staff_id, customer_id, time_s):
            return
        story = self._story
        waits_s = max(MIN_GAP_S, self._time.clock_s(story.return_median_days * DAY_S * -math.log2(1.0 - chances[1])))
        if chances[0] < story.second_deletion_share:
            self._time.at(time_s + waits_s, partial(self._later, second, staff_id, customer_id, {}))
        elif chances[0] < story.second_deletion_share + story.return_share:
            edges = np.cumsum([channel.share for channel in self.channels.all])
            kind = min(int(np.searchsorted(edges, chances[2] * edges[-1])), len(edges) - 1)
            channel, number = self.channels.all[kind], chances[3] * _APART % 1.0
            told = {
                "state": self._ways.state(kind, int(number * channel.numbers), self._crowd.store_of(staff_id)),
                "welcome": chances[3] < channel.welcome,
                "add_way": channel.add_way,
            }
            self._time.at(time_s + waits_s, partial(self._later, "add", staff_id, customer_id, told))

    def edit(self, position: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        """A remark, the phone number as far as the member knows it, or a tag."""
        staff_id, customer_id = self._crowd.pair(position)
        notes = self._corp.of(Notes)
        if self.tags and chances[0] < 0.6:
            tag = self.tags[int(chances[1] * len(self.tags))]
            worn = tag in notes.get(staff_id, customer_id).tags
            notes.edit_in_client(
                time_s, staff_id, customer_id, add_tags=() if worn else (tag,), remove_tags=(tag,) if worn else ()
            )
            return
        index = self._columns.ids.index(customer_id)
        phone = self._crowd.world.identities.signs(index).phone if index is not None else ""
        name = self._corp.people.customer(customer_id).name
        notes.edit_in_client(
            time_s, staff_id, customer_id, remark=f"{name} {chances[2]:.2f}"[:20], mobiles=[phone] if phone else None
        )

    def chat(self, position: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        self._converse(*self._crowd.pair(position), time_s, chances)

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
            waits_s = max(1, self._time.clock_s(self._story.answer_median_s * -math.log2(1.0 - chances[1])))
            self._time.at(time_s + waits_s, partial(self._answer, staff_id, customer_id))
        return True

    def _answer(self, staff_id: str, customer_id: str, time_s: int) -> None:
        pair = self._corp.relations.get(staff_id, customer_id)
        if pair is not None and pair.friend and self._crowd.works(staff_id):
            self._corp.say(Said(time_s, staff_id, customer_id, False))

    def complain(self, position: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        staff_id, customer_id = self._crowd.pair(position)
        self._corp.complain(Complaint(time_s, staff_id, customer_id))

    def leave(self, staff: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        self._corp.of(Roster).leave(self._columns.staff_ids[staff], time_s)

    def buy(self, customer: int, item: int, number: int, chances: list[float], time_s: int) -> None:
        customer_id = self._columns.ids.id(customer)
        depletes_s = self._time.second(self._cycles.depletes_on(customer, item, number))
        sale = self.shop.sell(time_s, customer_id, item, f"own|{number}", depletes_s=depletes_s)
        self.reactions.bought(customer_id, sale)

    def buy_as_stranger(self, serial: int, item: int, _: int, chances: list[float], time_s: int) -> None:
        self.shop.sell(time_s, "", item, f"stranger|{time_s - self._time.start_s}|{serial}")

    def buy_in_burst(self, position: int, _: int, serial: int, chances: list[float], time_s: int) -> None:
        _staff_id, customer_id = self._crowd.pair(position)
        index = self._columns.ids.index(customer_id)
        sale = self.shop.sell(
            time_s, customer_id, self._cycles.item_of(index or 0), f"burst|{time_s - self._time.start_s}|{serial}"
        )
        self.reactions.bought(customer_id, sale)

    def _buy_because(self, customer_id: str, cause: str, time_s: int) -> Sale:
        index = self._columns.ids.index(customer_id)
        return self.shop.sell(time_s, customer_id, self._cycles.item_of(index or 0), f"touch|{cause}")

    def scan_code(self, config_id: str, who: float, time_s: int) -> None:
        customer_id = self._crowd.visitor(who)
        if customer_id is not None:
            change = self._corp.of(Ways).scan(config_id, customer_id, time_s)
            if change is not None:
                self._corp.happen(change)

    def visit_link(self, link_id: str, who: float, time_s: int) -> None:
        customer_id = self._crowd.visitor(who)
        if customer_id is not None:
            channel = self.channels.pick(generator(self._corp.seed, link_id, customer_id), 1)
            state = self.channels.state(int(channel.kinds[0]), int(channel.numbers[0]), 0)
            self._corp.of(AcquisitionBook).visit(link_id, customer_id, state, time_s)

    def scan_join_way(self, config_id: str, who: float, time_s: int) -> None:
        customer_id = self._crowd.visitor(who)
        if customer_id is not None:
            self._corp.of(Groups).scan_way(config_id, customer_id, time_s)

    def join_group(self, number: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        groups = self._corp.of(Groups)
        group = groups.all[number]
        if group.dismissed_s:
            return
        if chances[0] < 0.5 and (customers := self._corp.relations.count_of(group.now.owner)):
            of_owner = self._corp.relations.customers_of(group.now.owner)
            customer_id = of_owner[int(chances[1] * customers) % len(of_owner)]
        else:
            newcomer = self._crowd.newcomer()
            if newcomer is None:
                return
            customer_id = newcomer
        if chances[2] < 0.5:
            groups.scan(group.chat_id, customer_id, time_s)
        else:
            groups.invite(group.chat_id, [customer_id], group.now.owner, time_s, link=chances[2] < 0.7)

    def quit_group(self, number: int, _: int, __: int, chances: list[float], time_s: int) -> None:
        groups = self._corp.of(Groups)
        group = groups.all[number]
        outsiders = [member for member in group.now.members if member not in self._corp.people.staff]
        if outsiders and not group.dismissed_s:
            member = outsiders[int(chances[0] * len(outsiders))]
            if chances[1] < 0.8:
                groups.quit(group.chat_id, member, time_s)
            else:
                groups.remove(group.chat_id, [member], time_s)
