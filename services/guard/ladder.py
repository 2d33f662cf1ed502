"""The score and the cool-down ladder of one account, as a fold over its facts in the order of business time.

The order in which facts arrive does not matter, because the account is judged anew from all of them: sorted by time and
id, each is applied to what the ones before it led to. Times are business time, epoch ms.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from siyu.guard.rules import InForce, Level, RuleBook

LIFTED, STOP, RISK, DELETIONS, CONCERTED = "lifted", "stop", "risk", "deletions", "concerted"
VELOCITY = "velocity."
"""Kind of a fact: this and the rule's id."""

_NEGLIGIBLE = 0.01
"""Points."""


class Fact(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """Something that happened. Sorted by time, then id."""

    time_ms: int
    id: str
    kind: str
    count: int
    seq: int
    """Place in the order of arrival: a person who lifts something has seen what came before, and no more."""


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the facts up to ``at_ms`` led to."""

    at_ms: int = 0
    points: dict[str, float] = {}
    """By kind, as of ``at_ms``."""
    step: int = 0
    """Of the last cool-down; one more than the ladder has: stopped by it."""
    ladder_until_ms: int = 0
    """End of the last cool-down of the ladder."""
    pause_until_ms: int = 0
    stopped: bool = False
    by_ladder: bool = False
    """The ladder stopped it: its clean days begin when it is lifted."""
    since_ms: int = 0
    """Begin of what blocks, or blocked last."""
    why: str = ""
    """Kind of what began it."""
    seen_seq: int = 0
    """Newest arrival among what blocks: who lifts it must have seen that."""

    def blocked(self, now_ms: int) -> bool:
        """Whether nothing goes out at that time."""
        return self.stopped or now_ms < self.ladder_until_ms or now_ms < self.pause_until_ms


class Verdict(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far the account is trusted at one time."""

    standing: Literal["clear", "watched", "cooling", "stopped"] = "clear"
    step: int = 0
    until_ms: int = 0
    allowance_percent: int = 100
    reason: str = ""


def fold(standing: Standing, facts: tuple[Fact, ...], book: RuleBook, level: Level, born_ms: int) -> Standing:
    """What these facts, in order, make of it. ``born_ms``: since when there is the account, as far as known."""
    for fact in facts:
        standing = _apply(standing, fact, book.at(fact.time_ms), level, born_ms)
    return standing


def risk(standing: Standing, now_ms: int, book: RuleBook, level: Level) -> dict[str, float]:
    """The points of each kind that are left at that time."""
    return _decayed(standing, now_ms, book.at(now_ms), level)


def verdict(standing: Standing, now_ms: int, book: RuleBook, level: Level) -> Verdict:
    """How far the account is trusted at ``now_ms``, which is not before the last fact."""
    rules = book.at(now_ms).rules
    on_ladder = standing.step > 0 and (
        standing.stopped or now_ms - standing.ladder_until_ms < rules.ladder.reset_after_ms
    )
    step = standing.step if on_ladder else 0
    if standing.stopped:
        return Verdict("stopped", step, 0, 0, standing.why)
    if standing.blocked(now_ms):
        return Verdict("cooling", step, max(standing.ladder_until_ms, standing.pause_until_ms), 0, standing.why)
    points = _decayed(standing, now_ms, book.at(now_ms), level)
    total = sum(points.values())
    percent = rules.score.percent(total)
    if total < rules.score.watched_from and percent == 100:
        return Verdict("clear", step, 0, 100, "")
    return Verdict("watched", step, 0, percent, max(sorted(points), key=lambda kind: points[kind]))


def next_change_ms(standing: Standing, seen: Verdict, now_ms: int, book: RuleBook) -> int:
    """When the verdict may be another although nothing happens; 0: never."""
    rules = book.at(now_ms).rules
    times = [standing.ladder_until_ms, standing.pause_until_ms]
    if seen.step:
        times.append(standing.ladder_until_ms + rules.ladder.reset_after_ms)
    if seen.standing == "watched":
        times.append(now_ms + rules.score.review_ms)
    return 0 if standing.stopped else min((at for at in times if at > now_ms), default=0)


def blocks(fact_kind: str, level: Level, rules: InForce) -> bool:
    """Whether a fact of that kind blocks by itself."""
    sign = rules.signals.get((fact_kind, level))
    return fact_kind == STOP or (sign is not None and sign.effect != "points")


def _apply(before: Standing, fact: Fact, rules: InForce, level: Level, born_ms: int) -> Standing:
    now = fact.time_ms
    points = _decayed(before, now, rules, level)
    after = msgspec.structs.replace(before, at_ms=max(now, before.at_ms), points=points)
    if fact.kind == LIFTED:
        return _lifted(after, fact)
    if fact.kind == STOP:
        return _blocked(after, fact, stopped=True)
    gained, most = _gain(fact, rules, level, born_ms)
    had = points.get(fact.kind, 0.0)
    if fact.kind.startswith(VELOCITY) or fact.kind == CONCERTED:
        gained = max(0.0, gained - had)  # one pace too fast counts once, however long it lasts
    elif most:
        gained = min(gained, max(0.0, most - had))
    if gained:
        points = {**points, fact.kind: had + gained}
        after = msgspec.structs.replace(after, points=points)
    sign = rules.signals.get((fact.kind, level))
    if sign is not None and sign.effect == "stop":
        return _blocked(after, fact, stopped=True)
    if sign is not None and sign.effect == "pause":
        return _blocked(after, fact, pause_until_ms=max(after.pause_until_ms, now + sign.pause_ms))
    if sign is not None and sign.effect == "ladder":
        return _incident(after, fact, fact.kind, rules)
    score = rules.rules.score
    total = sum(points.values())
    if gained and total >= score.trip_at:
        share = score.trip_at * score.kept_at_trip_percent / 100 / total
        points = {kind: amount * share for kind, amount in points.items()}
        return _incident(msgspec.structs.replace(after, points=points), fact, RISK, rules)
    return after


def _gain(fact: Fact, rules: InForce, level: Level, born_ms: int) -> tuple[float, float]:
    """(points of the fact, the most there may be of its kind; 0: no bound)."""
    if fact.kind.startswith(VELOCITY):
        rule_id = fact.kind.removeprefix(VELOCITY)
        for rule in rules.rules.velocity:
            if rule.id == rule_id:
                old = rule.account_younger_ms and fact.time_ms - born_ms >= rule.account_younger_ms
                return (0.0 if old else rule.points), 0.0
        return 0.0, 0.0
    if fact.kind == CONCERTED:
        reached = [step.points for step in rules.rules.concerted.steps if step.staff <= fact.count]
        return (reached[-1] if reached else 0.0), 0.0
    if fact.kind == DELETIONS:
        deletions = rules.rules.deletions
        return min(deletions.points * fact.count, deletions.points_max), deletions.points_max
    sign = rules.signals.get((fact.kind, level))
    return (0.0 if sign is None else sign.score(fact.count)), 0.0


def _incident(standing: Standing, fact: Fact, why: str, rules: InForce) -> Standing:
    """The next step of the ladder; during a cool-down only a later end, because the account did not go on."""
    ladder, now = rules.rules.ladder, fact.time_ms
    if standing.stopped:
        return _blocked(standing, fact, why=why)
    if now < standing.ladder_until_ms:
        until_ms = max(standing.ladder_until_ms, now + ladder.steps_ms[min(standing.step, len(ladder.steps_ms)) - 1])
        return _blocked(standing, fact, why=why, ladder_until_ms=until_ms)
    clean = standing.step == 0 or now - standing.ladder_until_ms >= ladder.reset_after_ms
    step = 1 if clean else min(standing.step + 1, len(ladder.steps_ms) + 1)
    if step > len(ladder.steps_ms):
        return _blocked(standing, fact, why=why, step=step, ladder_until_ms=now, stopped=True, by_ladder=True)
    return _blocked(standing, fact, why=why, step=step, ladder_until_ms=now + ladder.steps_ms[step - 1])


def _blocked(standing: Standing, fact: Fact, *, why: str = "", **changes: int | bool) -> Standing:
    """With the changes, and the fact among what blocks. The strongest says why: a stop before a cool-down."""
    was = standing.blocked(fact.time_ms)
    stronger = not was or (bool(changes.get("stopped")) and not standing.stopped)
    return msgspec.structs.replace(
        standing,
        since_ms=standing.since_ms if was else fact.time_ms,
        why=(why or fact.kind) if stronger else standing.why,
        seen_seq=max(standing.seen_seq, fact.seq) if was else fact.seq,
        **changes,
    )


def _lifted(standing: Standing, fact: Fact) -> Standing:
    """A person has looked at all of it: nothing blocks, the points are gone, the step stays for the next time. What
    nobody had seen when the lift was approved stays in force."""
    now = fact.time_ms
    if not standing.blocked(now) or standing.seen_seq > fact.seq:
        return standing
    return msgspec.structs.replace(
        standing,
        points={},
        stopped=False,
        by_ladder=False,
        ladder_until_ms=now if standing.by_ladder else min(standing.ladder_until_ms, now),
        pause_until_ms=min(standing.pause_until_ms, now),
    )


def _decayed(standing: Standing, now_ms: int, rules: InForce, level: Level) -> dict[str, float]:
    passed = now_ms - standing.at_ms
    if passed <= 0 or not standing.points:
        return standing.points
    left = {
        kind: amount * 0.5 ** (passed / _half_life_ms(kind, rules, level)) for kind, amount in standing.points.items()
    }
    return {kind: amount for kind, amount in left.items() if amount >= _NEGLIGIBLE}


def _half_life_ms(kind: str, rules: InForce, level: Level) -> int:
    if kind.startswith(VELOCITY):
        return rules.rules.velocity_half_life_ms
    if kind == CONCERTED:
        return rules.rules.concerted.half_life_ms
    sign = rules.signals.get((kind, level))
    if kind == DELETIONS or sign is None or not sign.half_life_ms:
        return rules.rules.deletions.half_life_ms  # also of a kind that a newer version no longer has
    return sign.half_life_ms
