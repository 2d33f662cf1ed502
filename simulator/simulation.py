"""Plays a scenario against the clock: moves the world, gives out codes, sends callbacks, knows when all is done.

idle → playing → (with data: the clock jumps and replays a year) → settling → done. Done means that every callback was
accepted or dropped, every bill can be read, and no welcome code can be used any more; then the truth is written.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from simulator.bills import BillBook
from simulator.callbacks import contact_message, other_message
from simulator.delivery import Deliverer
from simulator.platform.endpoints import Endpoints
from simulator.platform.welcomes import Welcomes
from simulator.scenario import CannotPlay, Plan
from simulator.settings import SimulatorSettings
from simulator.truth import truth
from simulator.world import ContactChange, World
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
    """One world and one scenario."""

    def __init__(self, settings: SimulatorSettings, *, plan: Planner, clock: Clock, deliverer: Deliverer) -> None:
        self._settings = settings
        self._planner = plan
        self._clock = clock
        self._deliverer = deliverer
        self._log = get_logger()
        self.state: State = "idle"
        self.plan = plan(-(-clock.now_ms() // 1000))
        """Who exists and what will happen; planned again for the real start."""
        self._open_world()

    @property
    def now_ms(self) -> int:
        """Business time, epoch ms."""
        return self._clock.now_ms()

    def _open_world(self) -> None:
        plan = self.plan
        self.world = World()
        self.welcomes = Welcomes(plan.seed, self._settings.welcome_seconds)
        self.bills = {c: BillBook(b for b in plan.bills if b.corp_id == c) for c in plan.corps}
        # Bills of a scenario that has not begun cannot be read, whatever the clock says.
        readable = self.bills if self.state != "idle" else {c: BillBook(()) for c in plan.corps}
        self.endpoints = Endpoints(
            world=self.world,
            staff=plan.staff,
            customers=plan.customers,
            bills=readable,
            welcomes=self.welcomes,
            cursor_ttl_s=self._settings.cursor_seconds,
            seed=plan.seed,
        )

    def begin(self) -> None:
        """Fixes the start, one second from now. Raises NotIdle the second time, CannotPlay when it is too late."""
        if self.state != "idle":
            raise NotIdle(f"the scenario is {self.state}")
        self.plan = self._planner(-(-self._clock.now_ms() // 1000) + 1)
        self.state = "playing"
        self._open_world()
        self._deliverer.counts.planned = len(self.plan.contacts) + len(self.plan.others)
        self._log.info("scenario begins", status=self.plan.scenario, count=self._deliverer.counts.planned)

    async def play(self) -> None:
        """Runs the scenario that has begun to its end."""
        jumped = not self.plan.replay_from_s
        for number, event in enumerate(self.plan.timeline()):
            if not jumped and event.time_s >= self.plan.replay_from_s:
                await self._jump()
                jumped = True
            await self._reach(event.time_s * 1000)
            if isinstance(event, ContactChange):
                relationship = self.world.apply(event)
                code = self.welcomes.issue(event) if event.welcome else ""
                if event.change.startswith("delete_") and not relationship.friend:
                    self.welcomes.parted(event.pair)
                message = contact_message(event, code)
            else:
                message = other_message(event)
            self._deliverer.submit(number, event.corp_id, message)
        if not jumped:
            await self._jump()
        self.state = "settling"
        self._log.info("scenario settles", status="settling")
        await self._settle(self.plan.end_s * 1000)
        self.state = "done"
        document = self.truth()
        if self._settings.truth_file is not None:
            path = self._settings.truth_file
            await asyncio.to_thread(_write, path, msgspec.json.encode(document))
        self._log.info("scenario done", status="done", count=self._deliverer.counts.delivered)

    def truth(self) -> dict[str, Any]:
        """The ground truth at the end of the scenario."""
        return truth(self.plan, self.welcomes.issued, self._deliverer.counts)

    def status(self, calls: Mapping[str, int]) -> dict[str, Any]:
        """What ``GET /_sim/status`` says."""
        counts = self._deliverer.counts
        now_ms = self._clock.now_ms()
        idle = self.state == "idle"
        return {
            "state": self.state,
            "scenario": self.plan.scenario,
            "callbacks": {
                "planned": counts.planned,
                "delivered": counts.delivered,
                "dropped": counts.dropped,
                "duplicates": counts.duplicates,
                "attempts": counts.attempts,
            },
            "bills": {
                "total": 0 if idle else sum(book.total for book in self.bills.values()),
                "visible": 0 if idle else sum(book.visible(now_ms) for book in self.bills.values()),
            },
            "welcomes": {
                "issued": len(self.welcomes.issued),
                "sent": self.welcomes.sent,
                "late": self.welcomes.late,
            },
            "calls": dict(calls),
            "last_bill_time_ms": max((bill.time_s * 1000 for bill in self.plan.bills), default=0),
            "clock_ms": now_ms,
        }

    async def _reach(self, instant_ms: int) -> None:
        while self._clock.now_ms() < instant_ms:  # noqa: ASYNC110 — a clock file may change its pace at any time
            await asyncio.sleep(_TICK_S)

    async def _settle(self, until_ms: int) -> None:
        """Until callbacks are delivered or dropped, codes used or too old, and the clock has reached the instant."""
        await self._deliverer.wait_idle()
        await self._reach(until_ms)
        while not self.welcomes.settled(self._clock.now_ms()):  # noqa: ASYNC110 — codes also end by growing old
            await asyncio.sleep(_SETTLE_TICK_S)

    async def _jump(self) -> None:
        """Everybody has joined and been welcomed: the clock jumps and runs fast, then at ×1 again after the end."""
        await self._settle(0)
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
