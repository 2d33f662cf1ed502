"""Proves from the simulator's own record of calls that no limit was passed, and how much of each was used.

The record (``SIYU_SIM_CALLS_FILE``) says of every call when it arrived and was answered (business time, epoch ms), from
which address, for whom and with which errcode. The limits are a registry (``siyu.limits``), in force by the date of
each call. Nothing of what the executor believes goes in.

A window is checked at every arrival: for an arrival at t, what arrived in (t - length, t] against the amount in force
at t. As the count of a sliding window rises only at an arrival, that is every window there is. In flight is what had
arrived and was not answered; within a millisecond an answer is before an arrival. Every call counts, whatever its
errcode.

``python -m benchmarks.harness.verdict FILE [--limits FOLDER]`` prints it as JSON; status 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from siyu.events.types import Lane
from siyu.limits import (
    SHARED_SCOPES,
    Calendar,
    Concurrent,
    Limit,
    LimitRegistry,
    LimitsError,
    Scope,
    Sliding,
    load_registry,
)
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN

Int64s = npt.NDArray[np.int64]
Figures = dict[str, Any]

MASS_MESSAGE = "externalcontact/add_msg_template"
_APP_MESSAGE = "message/send"
_REMINDER = "externalcontact/remind_groupmsg_send"
_SHANGHAI_MS = 8 * 3_600_000
_DAY_MS = 86_400_000
_NO_LIMIT = int(np.iinfo(np.int64).max)


class BadRecord(ValueError):
    """A record of calls that proves nothing; says which line and why."""


class Call(msgspec.Struct, frozen=True):
    """One line of the record (``simulator/platform/calls.py``)."""

    business_ms: int
    answered_ms: int
    endpoint: str
    corp_id: str
    agent_id: str
    errcode: int
    ip: str
    staff_id: str = ""
    persons: tuple[str, ...] = ()
    message_id: str = ""
    digest: str = ""


def read_calls(path: Path) -> Iterator[Call]:
    """Calls in the order of the file. Raises BadRecord; only the last line may be torn, by a kill of its writer."""
    decode = msgspec.json.Decoder(Call).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                call = decode(line)
            except msgspec.MsgspecError as error:
                if not line.endswith(b"\n"):
                    return
                raise BadRecord(f"{path}:{number}: {error}") from None
            if call.answered_ms < call.business_ms:
                raise BadRecord(f"{path}:{number}: answered before it arrived")
            yield call


@dataclass(frozen=True)
class _Meter:
    """Which calls are counted together: a group of endpoints, by the parts of a scope."""

    scope: Scope
    endpoints: tuple[str, ...]
    persons: bool
    """A call counts once for each person it names."""


@dataclass(slots=True)
class _Arrivals:
    """Calls of one meter and one key, in the order of the record."""

    at: array[int] = field(default_factory=lambda: array("q"))
    answered: array[int] = field(default_factory=lambda: array("q"))
    units: array[int] = field(default_factory=lambda: array("q"))
    """Empty where every call counts once."""
    of: set[tuple[str, str]] = field(default_factory=set)
    """(corp, endpoint) of these calls."""


@dataclass(frozen=True)
class _Held:
    """A version of a limit, from when until when it held."""

    begins_ms: int
    ends_ms: int
    limit: Limit


@dataclass(slots=True)
class _Row:
    """One limit: for one corp, address or app, or for all people or all messages together."""

    limit: Limit
    endpoints: tuple[str, ...]
    of: str
    counters: int = 0
    calls: int = 0
    peak: int = 0
    over: int = 0
    worst: int = 0
    used: float | None = None
    windows: list[float] = field(default_factory=list)
    headroom: Mapping[Lane, float] = field(default_factory=dict)

    def figures(self) -> Figures:
        """``over``: arrivals that found more than the amount; ``worst``: how far past it; ``used``: share of what the
        whole limit would have admitted between begin and end, ``used_of_lane`` of a lane's headroom in it."""
        limit = self.limit
        found: Figures = {
            "limit": limit.id,
            "of": self.of,
            "endpoints": list(self.endpoints),
            "amount": limit.amount,
            "window": str(limit.window),
            "enforce": limit.enforce,
            "ours": limit.ours,
            "counters": self.counters,
            "calls": self.calls,
            "peak": self.peak,
            "over": self.over,
            "worst": self.worst,
        }
        if self.used is not None:
            found["used"] = round(self.used, 4)
            found["used_of_lane"] = {lane: round(self.used / share, 4) for lane, share in self.headroom.items()}
            found["used_by_window"] = [round(share, 4) for share in self.windows]
        return found


class Verdict:
    """Takes calls one by one, in any order, and says at the end what they prove. Holds 16 bytes a call and counter."""

    def __init__(self, registry: LimitRegistry, *, grace_ms: int = 0) -> None:
        """``grace_ms``: a call this soon after a limit was lowered may still be one of the limit before."""
        self._registry = registry
        self._grace_ms = grace_ms
        self._counted: dict[_Meter, dict[tuple[str, ...], _Arrivals]] = defaultdict(dict)
        self._meters: dict[tuple[int, str, str], tuple[_Meter, ...]] = {}
        self._stretch = range(0)
        self._errors: dict[str, Counter[int]] = defaultdict(Counter)
        self._unattributed: Counter[str] = Counter()
        self._accepted: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._people: Counter[tuple[str, str]] = Counter()
        self._calls = 0
        self._first_ms = self._last_ms = 0

    def add(self, call: Call) -> None:
        """Counts one call at every level that it belongs to."""
        self._first_ms = min(self._first_ms, call.business_ms) if self._calls else call.business_ms
        self._last_ms = max(self._last_ms, call.answered_ms)
        self._calls += 1
        self._errors[call.endpoint][call.errcode] += 1
        for meter in self._meters_of(call):
            counted = self._counted[meter]
            keys = _keys(meter.scope, call)
            if not keys:
                self._unattributed[f"{meter.scope} {call.endpoint}"] += 1
            for key in keys:
                arrivals = counted.get(key)
                if arrivals is None:
                    arrivals = counted[key] = _Arrivals()
                arrivals.at.append(call.business_ms)
                arrivals.answered.append(call.answered_ms)
                if meter.persons:
                    arrivals.units.append(max(1, len(call.persons)))
                arrivals.of.add((call.corp_id, call.endpoint))
        if call.errcode == 0:
            if call.endpoint in ENDPOINTS and ENDPOINTS[call.endpoint].repeat != "read":
                self._accepted[call.endpoint][call.corp_id, call.digest] += 1
            if call.endpoint == MASS_MESSAGE:
                # Without a set: a request that names somebody twice reaches them twice.
                self._people.update((call.corp_id, person) for person in call.persons)

    def _meters_of(self, call: Call) -> tuple[_Meter, ...]:
        if call.business_ms not in self._stretch:
            begins_ms = self._registry.at(call.business_ms).as_of_ms
            self._stretch = range(begins_ms, self._registry.next_change_ms(call.business_ms) or _NO_LIMIT)
        key = self._stretch.start, call.corp_id, call.endpoint
        found = self._meters.get(key)
        if found is None:
            # Also the limits that another one replaces for this call: what it replaces may hold again later.
            limits = [
                limit
                for limit in self._registry.at(call.business_ms).limits
                if limit.scope != "request" and not limit.outside and limit.covers(call.corp_id, call.endpoint)
            ]
            found = self._meters[key] = tuple(dict.fromkeys(_meter_of(limit, call.endpoint) for limit in limits))
        return found

    def figures(
        self, *, begin_ms: int | None = None, end_ms: int | None = None, people: Collection[str] | None = None
    ) -> Figures:
        """What is proved. The use of limits is measured between ``begin_ms`` and ``end_ms`` (business time; default:
        from the first arrival to the last answer), all else over the whole record. ``people``: who is to be in exactly
        one accepted mass message, once; without it nobody may be in two. ``wrong`` names what is not as it must be."""
        begin = self._first_ms if begin_ms is None else begin_ms
        end = max(self._last_ms if end_ms is None else end_ms, begin + 1)
        rows = [row.figures() for row in self._rows(begin, end)]
        over = sum(row["over"] for row in rows if row["enforce"] == "admit")
        repeated = {
            endpoint: repeats
            for endpoint, accepted in sorted(self._accepted.items())
            if (repeats := sum(count - 1 for count in accepted.values()))
        }
        undocumented = {
            endpoint: codes.total()
            for endpoint, codes in sorted(self._errors.items())
            if endpoint not in ENDPOINTS and endpoint != GETTOKEN
        }
        reached = self._reached(people)
        found_wrong = {
            "empty": not self._calls,
            "over": over > 0,
            # A second reminder of one message is a reminder like the first.
            "repeated": any(ENDPOINTS[e].repeat == "create" for e in repeated if e != _REMINDER),
            "undocumented": bool(undocumented),
            "people": any(reached.get(name) for name in ("more_than_once", "never", "unasked")),
        }
        wrong = [name for name, is_wrong in found_wrong.items() if is_wrong]
        return {
            "ok": not wrong,
            "wrong": wrong,
            "calls": self._calls,
            "from_ms": begin,
            "to_ms": end,
            "over": over,
            "observed_over": sum(row["over"] for row in rows if row["enforce"] == "observe"),
            "limits": rows,
            "errors": {
                endpoint: {str(code): count for code, count in sorted(codes.items())}
                for endpoint, codes in sorted(self._errors.items())
            },
            "repeated": repeated,
            "people": reached,
            "undocumented": undocumented,
            "unattributed": dict(self._unattributed),
        }

    def _reached(self, people: Collection[str] | None) -> Figures:
        once = sum(times == 1 for times in self._people.values())
        found: Figures = {"reached": len(self._people), "once": once, "more_than_once": len(self._people) - once}
        if people is not None:
            asked, reached = set(people), {person for _, person in self._people}
            found |= {"asked": len(asked), "never": len(asked - reached), "unasked": len(reached - asked)}
        return found

    def _rows(self, begin_ms: int, end_ms: int) -> list[_Row]:
        rows: dict[tuple[str, tuple[str, ...], str], _Row] = {}
        for meter, counted in self._counted.items():
            shared = meter.scope in SHARED_SCOPES
            for key, arrivals in counted.items():
                order, units = _in_order(arrivals)
                at, answered = order
                for limit_id, versions in self._versions(meter, arrivals).items():
                    limit = versions[-1].limit
                    of = "|".join(key) if shared else f"every {meter.scope.removesuffix('_api')}"
                    row = rows.setdefault((limit_id, meter.endpoints, of), _Row(limit, meter.endpoints, of))
                    used = _used(limit, at, answered, units)
                    past = used - _amount_at(at, versions, self._grace_ms)
                    row.counters += 1
                    row.calls += len(at)
                    row.peak = max(row.peak, int(used.max()))
                    row.over += int((past > 0).sum())
                    row.worst = max(row.worst, int(past.max()), 0)
                    if shared and isinstance(limit.window, Sliding):
                        row.used, row.windows = _use(limit.window.length_ms, at, units, versions, begin_ms, end_ms)
                        row.headroom = self._registry.at(begin_ms).headroom
        return sorted(rows.values(), key=lambda row: (row.endpoints, row.of, row.limit.id))

    def _versions(self, meter: _Meter, arrivals: _Arrivals) -> dict[str, list[_Held]]:
        """By limit, the stretches in which it held for any of these calls."""
        found: dict[str, list[_Held]] = defaultdict(list)
        at_ms, last_ms = min(arrivals.at) - self._grace_ms, max(arrivals.at)
        while at_ms <= last_ms:
            in_force = self._registry.at(at_ms)
            ends_ms = self._registry.next_change_ms(at_ms) or _NO_LIMIT
            held = {
                limit.id: limit
                for corp_id, endpoint in arrivals.of
                for limit in in_force.documented(corp_id, endpoint)
                if limit.scope == meter.scope and _meter_of(limit, endpoint) == meter
            }
            for limit_id, limit in held.items():
                found[limit_id].append(_Held(in_force.as_of_ms, ends_ms, limit))
            at_ms = ends_ms
        return found


def _meter_of(limit: Limit, endpoint: str) -> _Meter:
    return _Meter(limit.scope, limit.endpoints or (endpoint,), limit.counts == "persons")


def _keys(scope: Scope, call: Call) -> Iterable[tuple[str, ...]]:
    """Whose counters a call goes into: none when the record does not say whose."""
    match scope:
        case "corp_api":
            return ((call.corp_id,),) if call.corp_id else ()
        case "ip_api":
            return ((call.ip,),)
        case "app_api":
            return ((call.corp_id, call.agent_id),) if call.agent_id else ()
        case "staff_api":
            staff = call.persons if call.endpoint == _APP_MESSAGE else (call.staff_id,)
            return tuple((call.corp_id, member) for member in staff if member)
        case "customer_api":
            return tuple((call.corp_id, person) for person in call.persons)
        case "message_api":
            return ((call.corp_id, call.message_id),) if call.message_id else ()
        case "request":
            return ()


def _in_order(arrivals: _Arrivals) -> tuple[tuple[Int64s, Int64s], Int64s]:
    """(arrivals, answers) and units, by arrival."""
    at = np.frombuffer(arrivals.at, dtype=np.int64)
    answered = np.frombuffer(arrivals.answered, dtype=np.int64)
    units = np.frombuffer(arrivals.units, dtype=np.int64) if arrivals.units else np.ones(len(at), dtype=np.int64)
    order = np.lexsort((answered, at))
    return (at[order], answered[order]), units[order]


def _amount_at(at: Int64s, versions: Sequence[_Held], grace_ms: int) -> Int64s:
    """What was allowed at each arrival; as good as everything where the limit did not hold."""
    amounts = np.full(len(at), _NO_LIMIT, dtype=np.int64)
    for held in versions:
        amounts[(at >= held.begins_ms) & (at < held.ends_ms)] = held.limit.amount
    for held in versions:
        just_before = (at >= held.ends_ms) & (at < min(held.ends_ms, _NO_LIMIT - grace_ms) + grace_ms)
        amounts[just_before] = np.maximum(amounts[just_before], held.limit.amount)
    return amounts


def _used(limit: Limit, at: Int64s, answered: Int64s, units: Int64s) -> Int64s:
    """What each arrival made it, itself included."""
    before = np.concatenate(([0], np.cumsum(units)))
    number = np.arange(len(at))
    match limit.window:
        case Sliding(length_ms):
            return before[number + 1] - before[np.searchsorted(at, at - length_ms, side="right")]
        case Calendar(unit):
            day = (at + _SHANGHAI_MS) // _DAY_MS
            period = day if unit == "day" else day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
            return before[number + 1] - before[np.searchsorted(period, period, side="left")]
        case Concurrent():
            # One answered in the millisecond it came in was with nobody else for certain.
            lasting = answered > at
            entered = np.concatenate(([0], np.cumsum(lasting)))[number]
            left = np.searchsorted(np.sort(answered[lasting]), at, side="right")
            return entered - left + 1
        case _:
            raise BadRecord(f"limit {limit.id}: no window to count in")


def _use(
    length_ms: int, at: Int64s, units: Int64s, versions: Sequence[_Held], begin_ms: int, end_ms: int
) -> tuple[float | None, list[float]]:
    """Share of the admissible between begin and end, and in each window of it, the last one perhaps cut short. Of a
    window longer than that, all of it would have been admissible."""
    length_ms = min(length_ms, end_ms - begin_ms)
    edges = np.append(np.arange(begin_ms, end_ms, length_ms, dtype=np.int64), end_ms)
    inside = (at >= begin_ms) & (at < end_ms)
    made, _ = np.histogram(at[inside], edges, weights=units[inside])
    admissible = np.zeros(len(made))
    for held in versions:
        stretch = np.minimum(edges[1:], held.ends_ms) - np.maximum(edges[:-1], held.begins_ms)
        admissible += held.limit.amount * np.clip(stretch, 0, None) / length_ms
    if not admissible.sum():
        return None, []
    shares = np.divide(made, admissible, out=np.zeros(len(made)), where=admissible > 0)
    return float(made.sum() / admissible.sum()), [float(share) for share in shares]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 when the record proves everything, 1 when not, 2 when it cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="record of calls (SIYU_SIM_CALLS_FILE)")
    parser.add_argument("--limits", type=Path, default=Path("schemas/limits"), help="folder (default: %(default)s)")
    parser.add_argument("--begin", type=int, help="business ms from which on the use of limits is measured")
    parser.add_argument("--end", type=int, help="business ms until which it is")
    parser.add_argument("--grace", type=int, default=0, help="ms that a limit may be heeded later than it was lowered")
    parser.add_argument("--people", type=Path, help="file of ids that are to be in one accepted mass message each")
    options = parser.parse_args(arguments)
    try:
        verdict = Verdict(load_registry(options.limits), grace_ms=options.grace)
        for call in read_calls(options.file):
            verdict.add(call)
        people = options.people.read_text(encoding="utf-8").split() if options.people else None
    except (OSError, BadRecord, LimitsError) as error:
        print(error, file=sys.stderr)
        return 2
    found = verdict.figures(begin_ms=options.begin, end_ms=options.end, people=people)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
