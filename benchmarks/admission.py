"""How fast the governor admits a call at four levels of two sliding windows each, next to two simpler counters.

All three see the same arrivals after an hour that was filled with calls: the governor; a list of times for each window,
counted anew at every call; and a deque of times for each window, its old end dropped. The simple ones count a call at
one instant and forget nothing of it between processes; the governor counts it from its reservation to its answer. For
an hour of arrivals at twice the rate that the limits admit, decisions are compared: the governor may admit up to half a
percent less than the exact deques (buckets round up), and what it admitted is checked against every window afterwards.
Prints JSON; times are CPU time of this machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from services.executor.governor import Claim, Governor, Path
from siyu.limits import Limit, LimitSet, Margins, Scope, Sliding

MINUTE, HOUR = 60_000, 3_600_000
BEGIN = 1_800_050_000_000
AMOUNTS: dict[Scope, tuple[int, int]] = {
    "corp_api": (10_000, 150_000),
    "ip_api": (20_000, 600_000),
    "staff_api": (1_000, 20_000),
    "customer_api": (100, 2_000),
}
STAFF, CUSTOMERS = 100, 1_000
BATCH = 20


def limits() -> LimitSet:
    def limit(scope: Scope, amount: int, length_ms: int) -> Limit:
        name = f"{scope}_{length_ms}"
        return Limit(
            id=name,
            scope=scope,
            endpoints=(),
            corps=(),
            amount=amount,
            window=Sliding(length_ms),
            counts="calls",
            block="window",
            paced=False,
            enforce="admit",
            ours=False,
            source="fact sheet 4.1",
            confidence="benchmark",
            note="",
            family=name,
        )

    return LimitSet(
        revision="benchmark",
        as_of_ms=0,
        limits=tuple(
            limit(scope, amount, length)
            for scope, amounts in AMOUNTS.items()
            for amount, length in zip(amounts, (MINUTE, HOUR), strict=True)
        ),
        headroom={"welcome": 1.0, "urgent": 0.95, "bulk": 0.8, "sync": 0.8},
        margins=Margins(
            edge_ms=1_000,
            rate_after_error=0.5,
            rate_step=0.1,
            rate_step_ms=60_000,
            rate_floor=0.1,
            slow_once_per_ms=1_000,
            slow_recovery_ms=60_000,
        ),
    )


Keys = tuple[tuple[str, str], ...]


def keys_of(number: int) -> Keys:
    """The levels a call counts in: as the governor has them."""
    return (
        ("corp_api", "c"),
        ("ip_api", "e"),
        ("staff_api", str(number % STAFF)),
        ("customer_api", str(number % CUSTOMERS)),
    )


class Lists:
    """The obvious way: a list of times for each window, counted at every call."""

    def __init__(self) -> None:
        self.times: dict[tuple[str, str, int], list[int]] = {}

    def admit(self, keys: Keys, now: int) -> bool:
        windows = []
        for scope, owner in keys:
            for amount, length in zip(AMOUNTS[scope], (MINUTE, HOUR), strict=True):  # type: ignore[index]
                times = self.times.setdefault((scope, owner, length), [])
                times[:] = [at for at in times if at >= now - length]
                if len(times) >= amount:
                    return False
                windows.append(times)
        for times in windows:
            times.append(now)
        return True


class Deques:
    """The usual better way: a deque of times for each window."""

    def __init__(self) -> None:
        self.levels: dict[tuple[str, str], tuple[tuple[int, int, deque[int]], ...]] = {}

    def admit(self, keys: Keys, now: int) -> bool:
        levels = []
        for key in keys:
            level = self.levels.get(key)
            if level is None:
                amounts = zip(AMOUNTS[key[0]], (MINUTE, HOUR), strict=True)  # type: ignore[index]
                level = self.levels[key] = tuple((amount, length, deque()) for amount, length in amounts)
            for amount, length, times in level:
                while times and times[0] < now - length:
                    times.popleft()
                if len(times) >= amount:
                    return False
            levels.append(level)
        for level in levels:
            for _, _, times in level:
                times.append(now)
        return True


class Governed:
    """The governor; ``seconds`` of reservations alone, ``whole_seconds`` with begin and end."""

    def __init__(self) -> None:
        self.governor = Governor(
            limits(), egress="e", corps=("c", "d", "f"), load=lambda level: None, allowance=lambda corp, staff: 100
        )
        self.paths: dict[int, Path] = {}
        self.seconds = self.whole_seconds = 0.0

    def path(self, number: int) -> Path:
        number %= CUSTOMERS
        if number not in self.paths:
            claim = Claim("c", "1", "externalcontact/mark_tag", f"s{number % STAFF}", f"x{number}")
            self.paths[number] = self.governor.path(claim)
        return self.paths[number]

    def admit_all(self, arrivals: Iterator[list[tuple[int, int]]]) -> list[int]:
        """When calls were admitted; a batch at a time is reserved, begun and ended."""
        governor, reserve = self.governor, self.governor.reserve
        admitted: list[int] = []
        for batch in arrivals:
            asks = [(self.path(number), now) for number, now in batch]
            started = time.thread_time()
            answers = [reserve(path, "welcome", now) for path, now in asks]
            self.seconds += time.thread_time() - started
            for (path, now), answer in zip(asks, answers, strict=True):
                if answer == 0:
                    governor.begin(path, "welcome", now)
                    governor.finish(path, now)
                    admitted.append(now)
            self.whole_seconds += time.thread_time() - started
        return admitted


def batches(first: int, count: int, gap_ms: float, begin: int) -> Iterator[list[tuple[int, int]]]:
    for at in range(0, count, BATCH):
        yield [(first + n, begin + int(n * gap_ms)) for n in range(at, min(at + BATCH, count))]


def measure(admit: Callable[[Keys, int], bool], arrivals: Iterator[list[tuple[int, int]]]) -> tuple[float, list[int]]:
    """Seconds, and when calls were admitted."""
    seconds, admitted = 0.0, []
    for batch in arrivals:
        asks = [(keys_of(number), now) for number, now in batch]
        started = time.thread_time()
        answers = [admit(keys, now) for keys, now in asks]
        seconds += time.thread_time() - started
        admitted += [now for (_, now), answer in zip(asks, answers, strict=True) if answer]
    return seconds, admitted


def most_in(times: list[int], length: int) -> int:
    """The most calls in any closed stretch of the length."""
    return max((end - bisect_left(times, times[end] - length) + 1 for end in range(len(times))), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=150_000, help="timed arrivals at the rate that is admitted")
    parser.add_argument("--list-calls", type=int, default=40, help="timed arrivals of the list (default 40)")
    parser.add_argument("--filled", type=int, default=150_000, help="calls of the hour before (default 150,000)")
    arguments = parser.parse_args()

    filled = arguments.filled
    gap = HOUR / filled
    governed, deques, lists = Governed(), Deques(), Lists()
    governed.admit_all(batches(0, filled, gap, BEGIN))
    measure(deques.admit, batches(0, filled, gap, BEGIN))
    for number, now in (call for batch in batches(0, filled, gap, BEGIN) for call in batch):
        for scope, owner in keys_of(number):
            for length in (MINUTE, HOUR):
                lists.times.setdefault((scope, owner, length), []).append(now)

    begin = BEGIN + HOUR
    list_seconds, _ = measure(lists.admit, batches(filled, arguments.list_calls, gap, begin))
    governed.seconds = governed.whole_seconds = 0.0
    admitted = len(governed.admit_all(batches(filled, arguments.calls, gap, begin)))
    seconds, whole_seconds = governed.seconds, governed.whole_seconds
    deque_seconds, deque_admitted = measure(deques.admit, batches(filled, arguments.calls, gap, begin))

    # The same decisions: an hour of twice the rate that the corp's hour admits, from an empty start.
    exact, checked = Deques(), Governed()
    offered = 2 * AMOUNTS["corp_api"][1]
    ours = checked.admit_all(batches(0, 2 * offered, HOUR / offered, BEGIN))
    _, theirs = measure(exact.admit, batches(0, 2 * offered, HOUR / offered, BEGIN))
    over = [
        length
        for amount, length in zip(AMOUNTS["corp_api"], (MINUTE, HOUR), strict=True)
        if most_in(ours, length) > amount
    ]
    same = not over and 0.995 * len(theirs) <= len(ours) <= len(theirs)

    def each(count: int, total: float, **more: Any) -> dict[str, Any]:
        return {"calls": count, "microseconds": round(1e6 * total / count, 3), **more}

    mine = 1e6 * seconds / arguments.calls
    print(
        json.dumps(
            {
                "claim": "admission at 4 levels of 2 windows each costs less than 2 µs, whatever was used before",
                "python": platform.python_version(),
                "filled": filled,
                "governor": each(arguments.calls, seconds, admitted=admitted, claim_holds=mine < 2),
                "governor_with_begin_and_end": each(arguments.calls, whole_seconds),
                "lists": each(arguments.list_calls, list_seconds),
                "deques": each(arguments.calls, deque_seconds, admitted=len(deque_admitted)),
                "ratio_to_lists": round(1e6 * list_seconds / arguments.list_calls / mine, 1),
                "ratio_to_deques": round(1e6 * deque_seconds / arguments.calls / mine, 2),
                "decisions": {
                    "offered": 2 * offered,
                    "governor": len(ours),
                    "exact": len(theirs),
                    "windows_exceeded": over,
                    "same_up_to_rounding": same,
                },
            },
            indent=2,
            ensure_ascii=False,
        )
    )
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
