"""The faults of one run, drawn before it begins: one seed and length give the same faults, targets and moments.

Kinds are dealt from a shuffled deck, not thrown like dice, so that a minute has a bit of everything. Executors have a
deck of their own: they are struck while the calls of a send are under way.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

SESSION_S = 4.0
"""Session timeout of the workers: how long a silent one keeps its partitions."""
TRANSACTION_S = 5.0
"""Transaction timeout of the workers: how long a silent one holds readers back."""
EXECUTOR_SESSION_S = 6.0
"""Theirs: the shortest that they accept. What is done to them lasts longer in proportion."""
STREAMS = ("journey-0", "journey-1", "journey-2", "performance-0", "performance-1")
EXECUTORS = ("executor-0", "executor-1")
WORKERS = (*STREAMS, *EXECUTORS)
BROKER = "kafka"

AWAY_S = 4.0
"""Shortest absence of the broker: its controller must have missed it (3 s), see chaos_broker."""
BROKER_STEADY_S = 12.0
"""Shortest time from the broker's start to its next end."""

Kind = Literal["kill", "freeze", "freeze_past_session", "restart", "wipe", "stop_broker", "kill_broker"]

# Times one kind comes in a deck, and the shortest and longest time that its target is away.
_DECK: dict[Kind, tuple[int, float, float]] = {
    "kill": (6, 0.3, 6.0),
    "freeze": (3, 0.5, SESSION_S * 0.75),
    "freeze_past_session": (2, SESSION_S * 1.25, SESSION_S * 2.5),
    "restart": (4, 0.0, 0.0),
    "wipe": (3, 0.3, 6.0),
    "stop_broker": (1, AWAY_S, 15.0),
    "kill_broker": (1, AWAY_S, 15.0),
}
# The same for executors, in the middle of a send.
_STRIKES: tuple[Kind, ...] = ("kill", "kill", "kill", "wipe", "restart", "freeze", "freeze", "freeze_past_session")
GAP_S = (0.8, 4.0)
"""Shortest and longest time from one fault to the next."""
SENDS_FROM_S = 1.0
SEND_EVERY_S = 6.0
"""Mass messages, after the first moment of the chaos."""
_STRIKE_WITHIN_S = (0.1, 3.0)
"""After a send was asked for: so long its calls are under way."""
_STRUCK_SHARE = 0.7
"""Of the sends."""
_EXECUTOR_BACK_S = 6.0
"""From the start of an executor until it works, at most, on a busy machine: then it is worth being struck again."""


@dataclass(frozen=True)
class Fault:
    """What happens to whom. ``at_s`` counts from the first moment of the chaos."""

    at_s: float
    kind: Kind
    target: str
    seconds: float
    """How long the target is away; a restarted worker comes back at once."""

    def __str__(self) -> str:
        return (
            f"{self.at_s:6.1f} s  {self.kind:<19} {self.target:<13} {f'{self.seconds:4.1f} s' if self.seconds else ''}"
        )


def draw(
    seed: int, seconds: float, gap_s: tuple[float, float] = GAP_S, workers: Sequence[str] = WORKERS
) -> tuple[Fault, ...]:
    """All faults of a run, in order."""
    streams = [name for name in workers if name not in EXECUTORS]
    executors = [name for name in workers if name in EXECUTORS]
    strikes = _strikes(seed, seconds, executors) if executors else ()
    return tuple(sorted((*_faults(seed, seconds, gap_s, streams), *strikes), key=_moment))


def _moment(fault: Fault) -> float:
    return fault.at_s


def _faults(seed: int, seconds: float, gap_s: tuple[float, float], workers: Sequence[str]) -> Iterator[Fault]:
    chance = random.Random(f"{seed}|faults")
    deck: list[Kind] = []
    back_s = dict.fromkeys((*workers, BROKER), 0.0)
    at_s = chance.uniform(*gap_s)
    while at_s < seconds:
        if not deck:
            deck = [kind for kind, (times, _, _) in _DECK.items() for _ in range(times)]
            chance.shuffle(deck)
        kind = deck.pop()
        if kind.endswith("broker") and at_s < back_s[BROKER] + BROKER_STEADY_S:
            # Put back: a broker that never comes to serving in between is only one long outage.
            deck.insert(0, kind)
            kind = "kill"
        _, shortest, longest = _DECK[kind]
        # Squared: most absences are short, so that the run is more than one long outage.
        away_s = shortest + (longest - shortest) * chance.random() ** 2
        target = BROKER
        if not kind.endswith("broker"):
            target = chance.choice([name for name in workers if back_s[name] <= at_s] or workers)
        # A frozen worker is there to be killed.
        if not kind.startswith("freeze"):
            back_s[target] = at_s + away_s
        yield Fault(round(at_s, 2), kind, target, round(away_s, 2))
        at_s += chance.uniform(*gap_s)


def _strikes(seed: int, seconds: float, executors: Sequence[str]) -> Iterator[Fault]:
    """Which executor works on a send nobody knows beforehand: one of those that are back from the last time is hit."""
    chance = random.Random(f"{seed}|strikes")
    deck: list[Kind] = []
    back_s = dict.fromkeys(executors, 0.0)
    sent_s = SENDS_FROM_S
    while sent_s < seconds:
        at_s = sent_s + chance.uniform(*_STRIKE_WITHIN_S)
        sent_s += SEND_EVERY_S
        if chance.random() > _STRUCK_SHARE or at_s >= seconds:
            continue
        if not deck:
            deck = list(_STRIKES)
            chance.shuffle(deck)
        kind = deck.pop()
        _, shortest, longest = _DECK[kind]
        away_s = shortest + (longest - shortest) * chance.random() ** 2
        away_s *= EXECUTOR_SESSION_S / SESSION_S
        target = chance.choice([name for name in executors if back_s[name] <= at_s] or executors)
        back_s[target] = at_s + away_s + _EXECUTOR_BACK_S
        yield Fault(round(at_s, 2), kind, target, round(away_s, 2))
