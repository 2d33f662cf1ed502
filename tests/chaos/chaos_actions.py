"""Intents for the executors: the same seed gives the same sends, tag changes and people, at the same moments.

A send reaches people of its own, and every tag change is one of its kind, so that the platform's record of calls can be
held against the intents: nobody twice, nothing left out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos_plan import SEND_EVERY_S, SENDS_FROM_S

from benchmarks.harness.backlog import TAG, People, action
from benchmarks.harness.verdict import MASS_MESSAGE
from siyu.events import Action, Lane

CORPS = ("wwchaosacts000001", "wwchaosacts000002")
PEOPLE_OF_A_SEND = 400
PEOPLE_OF_A_CALL = 25
CAMPAIGNS = 5
_BULK_A_SECOND, _URGENT_A_SECOND = 12.0, 3.0
_HARVEST_MS = 900_000
"""Business time after a send was asked for: who has not had it by then never will."""
_REMINDED_AFTER_MS = 120_000
_STAFF_A_CORP = 10
WARM_UP = 16


def staff_and_customers(seconds: float) -> tuple[int, int]:
    """How many a world needs, so that every send of so many seconds finds people whom none before it had."""
    sends = int(max(0.0, seconds - SENDS_FROM_S) / SEND_EVERY_S) + 1
    # Half as many again: whoever sends has friends of their own, and these are not the same number for everybody.
    return _STAFF_A_CORP * len(CORPS), max(4_000, int(sends * PEOPLE_OF_A_SEND * 1.6))


@dataclass
class Asked:
    """What the executors were asked for."""

    actions: dict[str, Action] = field(default_factory=dict)
    """By id."""
    people: dict[str, frozenset[str]] = field(default_factory=dict)
    """Of each send, by its id."""

    @property
    def everybody(self) -> frozenset[str]:
        """Of all sends."""
        return frozenset().union(*self.people.values())


class Intents:
    """Asked for piece by piece, as time passes."""

    def __init__(self, seed: int, world: People) -> None:
        self.asked = Asked()
        self._chance = random.Random(f"{seed}|intents")
        self._world = world
        self._sends = 0
        self._made: dict[Lane, int] = {"bulk": 0, "urgent": 0}
        self._tagged = 0
        self._friends: dict[str, dict[str, list[str]]] = {}
        for corp_id, pairs in world.pairs.items():
            by_staff: dict[str, list[str]] = {}
            for staff_id, customer_id in pairs:
                by_staff.setdefault(staff_id, []).append(customer_id)
            self._friends[corp_id] = by_staff

    def warm_up(self, now_ms: int) -> list[Action]:
        """A few for every corp, to see that everything answers."""
        return [self._tag("urgent", now_ms) for _ in range(WARM_UP)]

    def due(self, passed_s: float, now_ms: int) -> list[Action]:
        """What is to be asked for up to this second and was not yet. ``now_ms``: business time."""
        made: list[Action] = []
        while self._sends * SEND_EVERY_S + SENDS_FROM_S <= passed_s:
            made.append(self._send(now_ms))
        for lane, rate in (("bulk", _BULK_A_SECOND), ("urgent", _URGENT_A_SECOND)):
            while self._made[lane] < passed_s * rate:  # type: ignore[index]
                self._made[lane] += 1  # type: ignore[index]
                made.append(self._tag(lane, now_ms))  # type: ignore[arg-type]
        return made

    def _send(self, now_ms: int) -> Action:
        number, corp_id = self._sends, CORPS[self._sends % len(CORPS)]
        self._sends += 1
        friends = self._friends[corp_id]
        if number % 3 == 2:
            # Nobody is named: WeCom chooses who sends.
            sender, share = "", PEOPLE_OF_A_SEND // len(friends)
            people = [customer for staff in sorted(friends) for customer in _taken(friends[staff], share)]
        else:
            sender = max(sorted(friends), key=lambda staff: len(friends[staff]))
            people = _taken(friends[sender], PEOPLE_OF_A_SEND)
        self._chance.shuffle(people)
        payload: dict[str, Any] = {
            "chat_type": "single",
            "external_userid": people,
            "text": {"content": f"News {number}."},
            "siyu": {"harvest_until_ms": now_ms + _HARVEST_MS, "remind_after_ms": [_REMINDED_AFTER_MS][: number % 2]},
        }
        if sender:
            payload["sender"] = sender
        made = action(
            number,
            "bulk",
            corp_id,
            MASS_MESSAGE,
            payload,
            now_ms=now_ms,
            staff_id=sender,
            action_id=f"chaos-send-{number:04d}",
            campaign_id=f"send-{number:04d}",
        )
        self.asked.people[made.action_id] = frozenset(people)
        return self._keep(made)

    def _tag(self, lane: Lane, now_ms: int) -> Action:
        """One of its kind: no two are about the same tag on the same person."""
        number, corp_id = self._tagged, CORPS[self._tagged % len(CORPS)]
        self._tagged += 1
        pairs, tags = self._world.pairs[corp_id], self._world.tags[corp_id]
        turn = number // len(CORPS)
        staff_id, customer_id = pairs[turn % len(pairs)]
        tag_id = tags[turn // len(pairs) % len(tags)]
        chance = self._chance.random()
        later_ms = now_ms + int(chance * 40_000)
        return self._keep(
            action(
                number,
                lane,
                corp_id,
                TAG,
                {"userid": staff_id, "external_userid": customer_id, "add_tag": [tag_id]},
                now_ms=now_ms,
                staff_id=staff_id,
                customer_id=customer_id,
                action_id=f"chaos-tag-{number:06d}",
                campaign_id=f"campaign-{self._chance.randrange(CAMPAIGNS)}" if lane == "bulk" else "",
                not_before_ms=later_ms if chance < 0.1 else 0,
                deadline_ms=later_ms + 30_000 if chance > 0.8 else 0,
            )
        )

    def _keep(self, made: Action) -> Action:
        self.asked.actions[made.action_id] = made
        return made


def _taken(people: list[str], count: int) -> list[str]:
    """So many of them, who are there no more afterwards."""
    taken = people[:count]
    del people[:count]
    return taken


LIMITS: Mapping[str, int] = {"mass_message_customers": PEOPLE_OF_A_CALL, "corp_api_minute": 400}
"""Amounts of this run, by limit: low, so that they are met."""


def faults_of_the_platform() -> Sequence[dict[str, Any]]:
    """Calls that take their time, so that there is something to hit, and answers that are lost on their way."""
    lost = [
        {"endpoint": endpoint, "share": share, "after_effect": True}
        for endpoint, share in ((MASS_MESSAGE, 0.04), (TAG, 0.02), ("externalcontact/send_welcome_msg", 0.03))
    ]
    # The first that fits hits: what is not lost takes long.
    return [*lost, {"endpoint": MASS_MESSAGE, "share": 1.0, "latency_ms": 600}]
