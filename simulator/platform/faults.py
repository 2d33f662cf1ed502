"""Errors, delays and blocks that a test asks for: the platform having a bad day, on purpose."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fnmatch import fnmatchcase

from simulator.platform.errors import TEXTS


class BadFault(ValueError):
    """A fault that makes no sense; says which field."""


@dataclass(slots=True)
class Fault:
    """What goes wrong with which calls, until when."""

    endpoint: str = "*"
    """Pattern of the path below ``/cgi-bin/``, as a shell reads it."""
    corp_id: str = ""
    """Empty: every corp."""
    errcode: int = 0
    """Answered instead of the call's own result; 0: none."""
    latency_ms: float = 0.0
    """Waited before the answer, wall time."""
    share: float = 1.0
    """Of the calls."""
    after_effect: bool = False
    """The call does its work and its answer is lost: the caller sees a closed connection."""
    calls_left: int = 0
    """So many calls more; 0: no such end."""
    until_s: float = 0.0
    """The platform's clock; 0: no such end."""
    number: int = 0
    hits: int = 0

    def check(self) -> None:
        """Raises BadFault."""
        if self.errcode not in TEXTS:
            raise BadFault(f"errcode: {self.errcode} is none the platform gives")
        if not 0 < self.share <= 1:
            raise BadFault("share: more than 0, at most 1")
        if self.latency_ms < 0 or self.calls_left < 0:
            raise BadFault("latency_ms and calls_left: 0 or more")
        if not (self.errcode or self.latency_ms or self.after_effect):
            raise BadFault("one of errcode, latency_ms and after_effect is needed")


class Faults:
    """The faults in force."""

    def __init__(self, seed: int) -> None:
        self.standing: list[Fault] = []
        self._random = random.Random(f"{seed}|faults")
        self._numbers = 0

    def add(self, fault: Fault) -> Fault:
        """Puts a fault in force. Raises BadFault."""
        fault.check()
        self._numbers += 1
        fault.number = self._numbers
        self.standing.append(fault)
        return fault

    def remove(self, number: int) -> bool:
        """Ends one; False when there is none of that number."""
        before = len(self.standing)
        self.standing = [fault for fault in self.standing if fault.number != number]
        return len(self.standing) < before

    def strike(self, endpoint: str, corp_id: str, clock_s: float) -> Fault | None:
        """The fault that hits this call, if any."""
        if not self.standing:
            return None
        self.standing = [f for f in self.standing if not f.until_s or clock_s < f.until_s]
        for fault in self.standing:
            if fault.corp_id not in ("", corp_id) or not fnmatchcase(endpoint, fault.endpoint):
                continue
            if fault.share < 1 and self._random.random() >= fault.share:
                continue
            fault.hits += 1
            if fault.calls_left:
                fault.calls_left -= 1
                if not fault.calls_left:
                    self.remove(fault.number)
            return fault
        return None
