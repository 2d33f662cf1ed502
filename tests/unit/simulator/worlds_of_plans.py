"""Plays a plan to its end at once: no clock, no delivery, nobody who calls."""

from collections.abc import Sequence
from functools import partial

import msgspec

from simulator.delivery import DeliveryCounts
from simulator.platform.endpoints import ALWAYS
from simulator.scenario import Plan
from simulator.truth import truth
from simulator.world.bills import BillBook
from simulator.world.corp import Callback, CorpWorld
from simulator.world.people import People
from simulator.world.relations import ContactChange, Relations
from simulator.world.schedule import Schedule


class Played:
    """The worlds of a plan, and the callbacks they sent."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sent: list[Callback] = []
        self.schedule = Schedule()
        self.corps = {
            corp_id: CorpWorld(
                corp_id,
                seed=plan.seed,
                people=plan.people.get(corp_id)
                or People.of_ids(plan.seed, plan.staff[corp_id], plan.customers[corp_id]),
                relations=Relations(corp_id, plan.openings.get(corp_id)),
                schedule=self.schedule,
                send=self.sent.append,
                rules=plan.rules,
            )
            for corp_id in plan.corps
        }
        for corp_id, corp in self.corps.items():
            for family in ALWAYS:
                corp.of(family)
            corp.of(BillBook).add(bill for bill in plan.bills if bill.corp_id == corp_id)
        plan.animate(self.corps)

    def until(self, second: int) -> "Played":
        while not self.schedule.run_until(second):
            pass
        return self

    def to_the_end(self) -> "Played":
        story = [(event.time_s, partial(self._happen, event)) for event in self.plan.timeline()]
        self.schedule.feed(iter(story))
        return self.until(max(self.plan.end_s, self.plan.ends_s))

    @property
    def changes(self) -> Sequence[ContactChange]:
        return [change for corp in self.corps.values() for change in corp.changes]

    def truth(self) -> dict:
        return truth(self.plan, self.corps, DeliveryCounts(submitted=len(self.sent)))

    def truth_bytes(self) -> bytes:
        return msgspec.json.encode(self.truth())

    def _happen(self, event, _due_s: int) -> None:
        if isinstance(event, ContactChange):
            assert self.corps[event.corp_id].happen(event), event
        else:
            self.corps[event.corp_id].emit(event.time_s, event.fields)
