"""One corp × endpoint of a shard: who waits there in each lane, what is reserved and may start, what is under way."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field

from services.executor.backlog import NO_DEADLINE, Backlog
from services.executor.governor import Path
from services.executor.work import Ask, Work
from siyu.events import Lane

LANES: tuple[Lane, ...] = ("welcome", "urgent", "bulk", "sync")
"""Who goes first."""

_LEAST_AHEAD = 4
_MOST_AHEAD = 256
_MOST_HELD = 1_000


@dataclass(slots=True)
class Staged:
    """An ask whose units are reserved; it may start once the reservation is committed, before ``start_by`` (monotonic
    seconds)."""

    work: Work
    ask: Ask
    path: Path
    lane: Lane
    start_by: float = 0.0


@dataclass(slots=True)
class LaneState:
    """One lane of a site."""

    backlog: Backlog = field(default_factory=Backlog)
    asks: list[tuple[int, int, Work, Ask]] = field(default_factory=list)
    """Of actions under way: retries, chunks, queries; by deadline."""
    held: list[tuple[int, int, Work, Ask]] = field(default_factory=list)
    """Asks that one staff member's or message's limit keeps back, by the time to ask again; the lane goes on."""
    looked: float = 0.0
    """Monotonic seconds at which it was last searched for what can no longer start in time."""
    recalled: deque[int] = field(default_factory=deque)
    """Numbers out of the backlog that a cancel seems to mean; looked at before anything else, whatever holds the
    lane."""
    again_ms: int = 0
    """Business time before which the governor refuses the whole lane."""
    ready: deque[Staged] = field(default_factory=deque)

    def waiting(self) -> int:
        """How many could go if the limits let them."""
        return len(self.backlog) + len(self.asks) + len(self.held) + len(self.recalled)

    def recall(self, campaign_id: str) -> None:
        """Takes a campaign's waiting actions, or with an empty id all of them, out of their order."""
        self.recalled += [waiting.number for waiting in self.backlog.drain(campaign_id or None)]

    def put(self, number: int, work: Work, ask: Ask) -> None:
        """Queues an ask of an action under way."""
        heapq.heappush(self.asks, (ask.deadline_ms or NO_DEADLINE, number, work, ask))

    def hold(self, again_ms: int, number: int, work: Work, ask: Ask) -> None:
        """Keeps an ask back until then."""
        heapq.heappush(self.held, (again_ms, number, work, ask))

    def release(self, now_ms: int) -> None:
        """Asks whose time has come wait in line again."""
        while self.held and self.held[0][0] <= now_ms:
            _, number, work, ask = heapq.heappop(self.held)
            self.put(number, work, ask)

    @property
    def crowded(self) -> bool:
        """So many are held back that taking more out of the backlog would only move it into memory."""
        return len(self.held) >= _MOST_HELD


class Timeouts:
    """Time limits of the calls that are reserved or under way, ms."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, timeout_ms: int) -> None:
        """A call is reserved."""
        self._counts[timeout_ms] += 1

    def remove(self, timeout_ms: int) -> None:
        """It is over or given back."""
        self._counts[timeout_ms] -= 1
        if not self._counts[timeout_ms]:
            del self._counts[timeout_ms]

    @property
    def longest_ms(self) -> int:
        """0 while there is none."""
        return max(self._counts, default=0)


class Site:
    """All lanes of one corp × endpoint."""

    __slots__ = ("_ahead", "_started", "busy", "corp_id", "endpoint", "lanes", "running", "staged")

    def __init__(self, corp_id: str, endpoint: str) -> None:
        self.corp_id = corp_id
        self.endpoint = endpoint
        self.lanes: dict[Lane, LaneState] = {}
        self.running = 0
        self.busy: set[tuple[str, str] | None] = set()
        """Records that calls under way change: a second call to the same waits."""
        self.staged = 0
        self._started = 0
        self._ahead = _LEAST_AHEAD

    def lane(self, lane: Lane) -> LaneState:
        """One lane's state."""
        found = self.lanes.get(lane)
        if found is None:
            found = self.lanes[lane] = LaneState()
        return found

    @property
    def ready(self) -> int:
        """Reserved, committed and not started."""
        return sum(len(state.ready) for state in self.lanes.values())

    def room(self) -> int:
        """How many more to reserve: what started during the last commit, twice over, so that the next commit ends
        before the last reserved one has started."""
        return self._ahead - self.staged - self.ready

    def started(self) -> None:
        """A call began."""
        self.running += 1
        self._started += 1

    def committed(self) -> None:
        """A commit ended: look at how many calls began meanwhile."""
        self._ahead = max(_LEAST_AHEAD, min(_MOST_AHEAD, 2 * self._started + 2, 2 * self._ahead))
        self._started = 0

    def pop_ready(self) -> Staged | None:
        """The next that may start, by lane."""
        for lane in LANES:
            state = self.lanes.get(lane)
            if state is not None and state.ready:
                return state.ready.popleft()
        return None

    @property
    def idle(self) -> bool:
        """Nothing here waits or runs."""
        return not self.running and not self.staged and not any(s.ready or s.waiting() for s in self.lanes.values())
