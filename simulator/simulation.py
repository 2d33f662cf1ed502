"""Plays a scenario against the clock: moves the worlds, sends their callbacks, knows when all is done.

idle → playing → (with data: the clock jumps and replays a year) → settling → done. Done means that every callback was
accepted or dropped, every bill can be read, and no welcome code can be used any more; then the truth is written. An
open-ended scenario plays until the process ends.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from simulator.callbacks import OtherEvent
from simulator.delivery import Deliverer
from simulator.platform.endpoints import ALWAYS
from simulator.scenario import CannotPlay, Plan
from simulator.settings import SimulatorSettings
from simulator.truth import truth
from simulator.world.bills import BillBook
from simulator.world.corp import CorpWorld
from simulator.world.people import People
from simulator.world.relations import ContactChange, Relations
from simulator.world.schedule import Action, Schedule
from siyu.ops.clock import Clock, wall_ms, write_segments
from siyu.ops.logging import get_logger

State = Literal["idle", "playing", "settling", "done"]
Planner = Callable[[int], Plan]
"""The scenario for a start in epoch seconds of business time."""

_TICK_S = 0.02
_SETTLE_TICK_S = 0.1
# Long enough for every process to look at its clock file again (100 ms) before the new segment begins.
_SEGMENT_NOTICE_MS = 500


class NotIdle(RuntimeError):
    """A scenario can begin once."""


class Simulation:
    """The worlds of all corps and one scenario."""

    def __init__(self, settings: SimulatorSettings, *, plan: Planner, clock: Clock, deliverer: Deliverer) -> None:
        self._settings = settings
        self._planner = plan
        self._clock = clock
        self._deliverer = deliverer
        self._log = get_logger()
        self.state: State = "idle"
        self.opened: list[Callable[[Mapping[str, CorpWorld]], None]] = []
        """Told of the worlds of a scenario that begins, before anybody in them moves."""
        self.plan = plan(-(-clock.now_ms() // 1000))
        """Who exists and what will happen; planned again for the real start."""
        self._open_worlds()

    @property
    def now_ms(self) -> int:
        """Business time, epoch ms."""
        return self._clock.now_ms()

    def clock_s(self) -> float:
        """The platform's own clock: what tokens, limits and cursors live by. It is business time but for replays, in
        which a token would live for milliseconds (docs/decisions/0006)."""
        return time.monotonic() if self.plan.replay_from_s else self._clock.now_ms() / 1000

    @property
    def deliverer(self) -> Deliverer:
        """Who delivers the callbacks."""
        return self._deliverer

    def _open_worlds(self) -> None:
        plan = self.plan
        self.schedule = Schedule()
        self.corps: dict[str, CorpWorld] = {
            corp_id: CorpWorld(
                corp_id,
                seed=plan.seed,
                people=plan.people.get(corp_id)
                or People.of_ids(plan.seed, plan.staff[corp_id], plan.customers[corp_id]),
                relations=Relations(corp_id, plan.openings.get(corp_id)),
                schedule=self.schedule,
                send=self._deliverer.send,
                welcome_s=self._settings.welcome_seconds,
                rules=plan.rules,
            )
            for corp_id in plan.corps
        }
        self._to_come = 0
        # Bills of a scenario that has not begun cannot be read, whatever the clock says.
        if self.state != "idle":
            for corp_id, corp in self.corps.items():
                for family in ALWAYS:
                    corp.of(family)
                corp.of(BillBook).add(bill for bill in plan.bills if bill.corp_id == corp_id)
            for told in self.opened:
                told(self.corps)
            plan.animate(self.corps)

    def begin(self) -> None:
        """Fixes the start, one second from now. Raises NotIdle the second time, CannotPlay when it is too late."""
        if self.state != "idle":
            raise NotIdle(f"the scenario is {self.state}")
        self.plan = self._planner(-(-self._clock.now_ms() // 1000) + 1)
        self.state = "playing"
        self._open_worlds()
        self._to_come = len(self.plan.contacts) + len(self.plan.others)
        self._log.info("scenario begins", status=self.plan.scenario, count=self._to_come)

    async def play(self) -> None:
        """Runs the scenario that has begun to its end."""
        story, jump_s = self.plan.timeline(), self.plan.replay_from_s
        await self._tell(event for event in story if not jump_s or event.time_s < jump_s)
        if jump_s:
            await self._settle(0)
            await self._jump()
            await self._tell(event for event in story if event.time_s >= jump_s)
        while self.plan.open_ended:
            await self._reach(0)
            await asyncio.sleep(_TICK_S)
        await self._reach(self.plan.ends_s * 1000)
        self.state = "settling"
        self._log.info("scenario settles", status="settling")
        await self._settle(self.end_s * 1000)
        self.state = "done"
        document = self.truth()
        if self._settings.truth_file is not None:
            path = self._settings.truth_file
            await asyncio.to_thread(_write, path, msgspec.json.encode(document))
        self._log.info("scenario done", status="done", count=self._deliverer.counts.delivered)

    @property
    def end_s(self) -> int:
        """When the last thing that is known of has happened and can be read."""
        bills = max((corp.of(BillBook).last_visible_ms for corp in self.corps.values()), default=0)
        return max(self.plan.end_s, -(-bills // 1000))

    def advance(self, now_s: int) -> bool:
        """Moves the worlds up to a second; False when there is more to be done and others should have a turn."""
        return self.schedule.run_until(now_s)

    def truth(self) -> dict[str, Any]:
        """The ground truth so far."""
        return truth(self.plan, self.corps, self._deliverer.counts, self._deliverer.undelivered)

    def status(self, calls: Mapping[str, int]) -> dict[str, Any]:
        """What ``GET /_sim/status`` says."""
        counts = self._deliverer.counts
        now_ms = self._clock.now_ms()
        books = [corp.of(BillBook) for corp in self.corps.values()]
        welcomes = [corp.welcomes for corp in self.corps.values()]
        return {
            "state": self.state,
            "scenario": self.plan.scenario,
            "callbacks": {
                "planned": counts.submitted + self._to_come,
                "delivered": counts.delivered,
                "dropped": counts.dropped,
                "duplicates": counts.duplicates,
                "attempts": counts.attempts,
            },
            "bills": {
                "total": sum(book.total for book in books),
                "visible": sum(book.visible(now_ms) for book in books),
            },
            "welcomes": {
                "issued": sum(len(w.issued) for w in welcomes),
                "sent": sum(w.sent for w in welcomes),
                "late": sum(w.late for w in welcomes),
            },
            "calls": dict(calls),
            "last_bill_time_ms": max((book.rows[-1].time_s * 1000 for book in books if book.rows), default=0),
            "clock_ms": now_ms,
        }

    async def _tell(self, story: Iterable[ContactChange | OtherEvent]) -> None:
        """Until everything of a sorted story has happened."""
        steps: list[tuple[int, Action]] = [(event.time_s, partial(self._happen, event)) for event in story]
        if not steps:
            return
        self.schedule.feed(iter(steps))
        await self._reach(steps[-1][0] * 1000)

    def _happen(self, event: ContactChange | OtherEvent, _due_s: int) -> None:
        self._to_come -= 1
        corp = self.corps[event.corp_id]
        if isinstance(event, ContactChange):
            corp.happen(event)
        else:
            corp.emit(event.time_s, event.fields)

    async def _reach(self, instant_ms: int) -> None:
        """Until the clock has reached an instant and all that was due by then has happened."""
        while True:
            now_ms = self._clock.now_ms()
            done = self.advance(now_ms // 1000)
            if done and now_ms >= instant_ms:
                return
            # A clock file may change its pace at any time.
            await asyncio.sleep(_TICK_S if done else 0)

    async def _settle(self, until_ms: int) -> None:
        """Until callbacks are delivered or dropped, codes used or too old, and the clock has reached the instant."""
        await self._deliverer.wait_idle()
        while self._clock.now_ms() < until_ms:  # noqa: ASYNC110 — a clock file may change its pace at any time
            await asyncio.sleep(_TICK_S)
        for corp in self.corps.values():
            while not corp.welcomes.settled(self._clock.now_ms()):  # noqa: ASYNC110 — codes also end by growing old
                await asyncio.sleep(_SETTLE_TICK_S)

    async def _jump(self) -> None:
        """Everybody has joined and been welcomed: the clock jumps and runs fast, then at ×1 again after the end."""
        path = self._settings.clock_file
        if path is None:
            raise CannotPlay("a replay needs a clock file: set SIYU_CLOCK_FILE")
        begin_ms = wall_ms() + _SEGMENT_NOTICE_MS
        from_ms, end_ms = self.plan.replay_from_s * 1000, self.plan.end_s * 1000
        replay_ms = self._settings.replay_seconds * 1000
        rate = (end_ms - from_ms) / replay_ms
        segments = json.loads(await asyncio.to_thread(path.read_text))
        segments.append({"wall_ms": begin_ms, "business_ms": from_ms, "rate": rate})
        segments.append(
            {"wall_ms": begin_ms + replay_ms, "business_ms": from_ms + math.ceil(replay_ms * rate), "rate": 1.0}
        )
        await asyncio.to_thread(write_segments, path, segments)
        self._log.info("replay begins", status="playing", seconds=self._settings.replay_seconds)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.replace(path)
