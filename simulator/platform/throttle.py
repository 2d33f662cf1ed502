"""Counts calls as the platform does and says when a call is one too many. Pure: the caller passes the time in.

Fact sheet 4.1 and 4.2: per corp and single API a limit a minute and an hour; the call past it starts a block as long as
the window, during which every call gets 45009; the same per source IP; at most five calls in flight (45033);
``debug=1`` caps an API at five calls a minute. Time is the platform's clock in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.platform.errors import ApiError

MINUTE_S = 60.0
HOUR_S = 3600.0
_DEBUG_PER_MINUTE = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """Documented defaults; every one a setting."""

    per_minute: int = 10_000
    per_hour: int = 150_000
    ip_per_minute: int = 20_000
    ip_per_hour: int = 600_000
    concurrency: int = 5
    wrong_secrets_per_hour: int = 2_000


@dataclass(slots=True)
class _Window:
    seconds: float
    limit: int
    started: float = 0.0
    count: int = 0
    blocked_until: float = 0.0

    def blocked(self, now: float) -> bool:
        return now < self.blocked_until

    def used(self, now: float) -> int:
        """Calls in the window that is open now."""
        return self.count if 0 <= now - self.started < self.seconds else 0

    def count_one(self, now: float) -> bool:
        """False when this is the call that goes past the limit: the block begins."""
        if now - self.started >= self.seconds:
            self.started, self.count = now, 0
        self.count += 1
        if self.count > self.limit:
            self.blocked_until = now + self.seconds
            self.started, self.count = self.blocked_until, 0
            return False
        return True


@dataclass(frozen=True, slots=True)
class Usage:
    """What a corp has used of one API's limits. ``blocked_until_s``: the platform's clock; 0: not blocked."""

    corp_id: str
    endpoint: str
    minute_used: int
    minute_limit: int
    hour_used: int
    hour_limit: int
    in_flight: int
    blocked_until_s: float


@dataclass(slots=True)
class Throttle:
    """All counters of the platform."""

    limits: Limits
    _windows: dict[tuple[str, str, float], _Window] = field(default_factory=dict)
    _in_flight: dict[tuple[str, str], int] = field(default_factory=dict)

    def count(self, scope: str, api: str, now: float, *, debug: bool = False) -> None:
        """Counts a call of a corp (``corp:…``) or source address (``ip:…``). Raises ApiError 45009."""
        per_minute, per_hour = (
            (self.limits.ip_per_minute, self.limits.ip_per_hour)
            if scope.startswith("ip:")
            else (self.limits.per_minute, self.limits.per_hour)
        )
        windows = [self._window(scope, api, MINUTE_S, per_minute), self._window(scope, api, HOUR_S, per_hour)]
        if debug:
            windows.append(self._window(scope + ":debug", api, MINUTE_S, _DEBUG_PER_MINUTE))
        if any(window.blocked(now) for window in windows):
            raise ApiError(45009)
        # Every window counts the call, also when another one is past its limit.
        within = [window.count_one(now) for window in windows]
        if not all(within):
            raise ApiError(45009)

    def enter(self, scope: str, api: str, most: int = 0) -> None:
        """A call begins; pair it with :meth:`leave`. Raises ApiError 45033, which needs no leave.

        ``most``: an API's own limit, where it has one.
        """
        running = self._in_flight.get((scope, api), 0)
        if running >= (most or self.limits.concurrency):
            raise ApiError(45033)
        self._in_flight[scope, api] = running + 1

    def leave(self, scope: str, api: str) -> None:
        """A call that had entered ends."""
        self._in_flight[scope, api] -= 1

    def wrong_secret(self, ip: str, now: float) -> None:
        """Counts a wrong secret of an address; past the limit it is banned for an hour (fact sheet 3.1)."""
        self._window("ip:" + ip, "wrong_secret", HOUR_S, self.limits.wrong_secrets_per_hour).count_one(now)

    def check_banned(self, ip: str, now: float) -> None:
        """Raises ApiError 45009 while the address is banned for wrong secrets."""
        if self._window("ip:" + ip, "wrong_secret", HOUR_S, self.limits.wrong_secrets_per_hour).blocked(now):
            raise ApiError(45009)

    def block(self, scope: str, api: str, until: float) -> None:
        """Refuses every call with 45009 until then, as if the limit had been passed."""
        self._window(scope, api, MINUTE_S, self.limits.per_minute).blocked_until = until

    def lift(self, scope: str, api: str) -> bool:
        """Ends the blocks of an API, however they began; False when there was none."""
        blocked = [w for (s, a, _), w in self._windows.items() if (s, a) == (scope, api) and w.blocked_until]
        for window in blocked:
            window.started, window.count, window.blocked_until = -window.seconds, 0, 0.0
        return bool(blocked)

    def usage(self, now: float) -> list[Usage]:
        """Every API that a corp has called, sorted."""
        found = []
        counted = {(s, a) for s, a, _ in self._windows if s.startswith("corp:") and not s.endswith(":debug")}
        for scope, api in sorted(counted):
            minute = self._window(scope, api, MINUTE_S, self.limits.per_minute)
            hour = self._window(scope, api, HOUR_S, self.limits.per_hour)
            until = max(minute.blocked_until, hour.blocked_until)
            found.append(
                Usage(
                    scope.removeprefix("corp:"),
                    api,
                    minute.used(now),
                    minute.limit,
                    hour.used(now),
                    hour.limit,
                    self._in_flight.get((scope, api), 0),
                    until if now < until else 0.0,
                )
            )
        return found

    def _window(self, scope: str, api: str, seconds: float, limit: int) -> _Window:
        key = (scope, api, seconds)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(seconds, limit, started=-seconds)
        return window
