"""What an account did, counted so that order and repeats do not matter, and the facts that follow from the counts.

Each function takes the counts and returns new ones with the facts that now hold; a fact is a function of the final
counts alone, so whoever came first makes no difference. Times are business time, epoch ms; days are Asia/Shanghai.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.guard.ladder import CONCERTED, DELETIONS, VELOCITY, Fact
from siyu.guard.rules import InForce

DAY_MS = 86_400_000
MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
_DAY_HOURS = 24
_SHANGHAI_MS = 8 * 3_600_000
_BUCKETS = 6
_KEPT_DAYS = 3
"""A delta may come that late against the newest, beside the days that deletions look back."""
_MOST_CELLS = 500
_MOST_CAMPAIGNS = 20

Cells = Mapping[int, tuple[int, int]]
"""Number of a signal → (minute, count): a signal sent twice counts once, one sent again with more counts the more."""
Velocity = Mapping[str, Mapping[int, int]]
"""Rule → sixth of its window → count."""


class Hour(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One hour of a staff member."""

    touched: int = 0
    """People added or written to."""
    lost: int = 0
    """Customers who deleted the staff member."""


Hours = Mapping[int, Hour]
"""Hours since 1970-01-01 00:00 in Shanghai → hour."""
Campaigns = Mapping[int, Mapping[int, tuple[int, ...]]]
"""Number of a campaign → minute → numbers of the staff who wrote for it, the smallest of them and as many as any step
of the rules asks for: enough to tell whether a step is reached, and the same whatever the order."""


def day_of(time_ms: int) -> int:
    """Number of the business day."""
    return (time_ms + _SHANGHAI_MS) // DAY_MS


def hour_of(time_ms: int, day: int) -> int:
    """Number of the hour; of another day's, what corrects it counts in its first."""
    return (time_ms + _SHANGHAI_MS) // _HOUR_MS if day_of(time_ms) == day else day * _DAY_HOURS


def with_cell(cells: Cells, number: int, time_ms: int, count: int, newest_ms: int, late_ms: int) -> tuple[Cells, int]:
    """The cells with this one, and by how much the total grew; 0 for a repeat or one that came too late."""
    minute, oldest = time_ms // MINUTE_MS, (newest_ms - late_ms) // MINUTE_MS
    known = cells.get(number, (minute, 0))[1]
    if minute < oldest or count <= known:
        return cells, 0
    kept = {n: cell for n, cell in cells.items() if cell[0] >= oldest} | {number: (minute, count)}
    if len(kept) > _MOST_CELLS:
        kept.pop(min(kept, key=lambda n: (kept[n][0], n)))
    return kept, count - known


def with_pace(
    counts: Velocity, of: str, count: int, time_ms: int, newest_ms: int, rules: InForce
) -> tuple[Velocity, list[Fact]]:
    """Adds to every velocity rule of that kind; the facts of windows that are above their limit now."""
    late_ms = rules.rules.late_ms
    facts = []
    for rule in rules.velocity[of]:
        if time_ms < newest_ms - late_ms:
            break
        size = rule.window_ms // _BUCKETS
        bucket, oldest = time_ms // size, (newest_ms - late_ms - rule.window_ms) // size
        buckets = {b: n for b, n in counts.get(rule.id, {}).items() if b >= oldest}
        buckets[bucket] = buckets.get(bucket, 0) + count
        counts = {**counts, rule.id: buckets}
        # A window that is above its limit still is when it is moved back to end at its last count.
        for end in range(bucket, bucket + _BUCKETS):
            if end in buckets and sum(buckets.get(b, 0) for b in range(end - _BUCKETS + 1, end + 1)) > rule.above:
                kind = VELOCITY + rule.id
                facts.append(Fact(end * size, f"{kind}:{end // _BUCKETS}", kind, 1, 0))
    return counts, facts


def with_hour(hours: Hours, hour: int, touched: int, lost: int, rules: InForce) -> Hours:
    """Adds to an hour; what is older than anybody looks at is dropped. The same object when it came too late."""
    kept_hours = (rules.rules.deletions.within_days + _KEPT_DAYS) * _DAY_HOURS
    newest = max(hours, default=hour)
    if hour <= newest - kept_hours:
        return hours
    was = hours.get(hour, Hour())
    kept = {number: known for number, known in hours.items() if number > max(newest, hour) - kept_hours}
    return {**kept, hour: Hour(was.touched + touched, was.lost + lost)}


def deletions(hours: Hours, changed: int, rules: InForce) -> list[Fact]:
    """The facts of the hours from the changed one on; a count of 0 takes an earlier fact back.

    A day's losses up to an hour, against the people touched in the days up to that hour. What is above the tolerated
    share belongs to the hour in which it came: later touches do not undo what was a sign when it happened.
    """
    rule = rules.rules.deletions
    ordered = sorted(hours)
    facts = []
    first = begin = touched = 0
    lost = above = day = 0
    for number in ordered:
        if number // _DAY_HOURS != day:
            day, lost, above = number // _DAY_HOURS, 0, 0
        touched += hours[number].touched
        begin = number - rule.within_days * _DAY_HOURS
        while ordered[first] <= begin:
            touched -= hours[ordered[first]].touched
            first += 1
        lost += hours[number].lost
        # Whom nobody touched was not lost to a touch; nobody is lost more often than touched.
        after_touch = max(0, min(lost, touched))
        excess = after_touch - int(touched * rule.tolerated_percent / 100) if after_touch >= rule.at_least else 0
        more = max(0, excess - above) if hours[number].lost > 0 else 0
        above += more
        if number >= changed:
            facts.append(Fact(number * _HOUR_MS - _SHANGHAI_MS, f"{DELETIONS}:{number}", DELETIONS, more, 0))
    return facts


def with_writer(
    campaigns: Campaigns, campaign: int, staff: int, time_ms: int, newest_ms: int, rules: InForce
) -> tuple[Campaigns, list[Fact]]:
    """A staff member wrote for a campaign: the facts of the windows in which many did."""
    rule = rules.rules.concerted
    span = max(1, rule.window_ms // MINUTE_MS)
    minute, oldest = time_ms // MINUTE_MS, newest_ms // MINUTE_MS - 3 * span
    if minute < oldest:
        return campaigns, []
    most = rule.steps[-1].staff
    minutes = {m: staff_ids for m, staff_ids in campaigns.get(campaign, {}).items() if m >= oldest}
    here = minutes.get(minute, ())
    if staff in here:
        return campaigns, []
    minutes[minute] = tuple(sorted((*here, staff))[:most])
    kept = {
        number: known for number, known in campaigns.items() if number != campaign and max(known, default=0) >= oldest
    }
    kept[campaign] = minutes
    if len(kept) > _MOST_CAMPAIGNS:
        kept.pop(min(kept, key=lambda number: (max(kept[number]), number)))
    facts = []
    for end in range(minute, minute + span):
        if end not in minutes:
            continue
        together: set[int] = set()
        for m in range(end - span + 1, end + 1):
            together.update(minutes.get(m, ()))
        if len(together) >= rule.steps[0].staff:
            fact_id = f"{CONCERTED}:{campaign:x}:{end // span}"
            facts.append(Fact(end * MINUTE_MS, fact_id, CONCERTED, min(len(together), most), 0))
    return kept, facts
