"""What is due, in order of business time: the one queue that moves the world."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

Action = Callable[[int], None]
"""Called with the second it was due at, however late it runs."""


class Schedule:
    """Actions by the business second at which they happen; those of one second in the order they were put in.

    ``feed`` takes a long, sorted story one step at a time, so that a year of events need not wait in memory.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Action]] = []
        self._serial = itertools.count()

    def at(self, time_s: int, action: Action) -> None:
        """Puts one action in; a time already past is due at once, as the next."""
        heapq.heappush(self._heap, (time_s, next(self._serial), action))

    def feed(self, story: Iterator[tuple[int, Action]]) -> None:
        """Takes (second, action) pairs in ascending order, each when the one before has happened."""
        step = next(story, None)
        if step is None:
            return
        time_s, action = step

        def happen(due_s: int) -> None:
            self.feed(story)
            action(due_s)

        self.at(time_s, happen)

    @property
    def next_s(self) -> int | None:
        """When the next action is due; None when nothing is."""
        return self._heap[0][0] if self._heap else None

    def run_until(self, now_s: int, at_most: int = 1_000) -> bool:
        """Runs what is due by ``now_s``; False when ``at_most`` actions were run and more are due."""
        for _ in range(at_most):
            if not self._heap or self._heap[0][0] > now_s:
                return True
            due_s, _, action = heapq.heappop(self._heap)
            action(due_s)
        return not self._heap or self._heap[0][0] > now_s
