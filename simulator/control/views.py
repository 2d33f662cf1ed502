"""What ``/_sim/…`` shows: plain data read from the running simulator, nothing changed by looking."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

import msgspec

from simulator.journal import Delivery
from simulator.pay.app import PayApp
from simulator.platform.calls import RecordedCall
from simulator.platform.gateway import Gateway
from simulator.simulation import Simulation
from simulator.world.bills import BillBook
from simulator.world.corp import CorpWorld
from simulator.world.discipline import Discipline
from simulator.world.kf import KfDesk
from simulator.world.messages import MessageBook
from simulator.world.people import LEFT
from simulator.world.relations import Relationship
from simulator.world.scale import Scale
from siyu.events.business_time import SHANGHAI

Row = dict[str, Any]


def beijing(ms: int) -> str:
    """``2026-11-21T20:41:15+08:00``."""
    return dt.datetime.fromtimestamp(ms / 1000, SHANGHAI).isoformat(timespec="seconds")


def world(corps: Mapping[str, CorpWorld], now_s: int) -> list[Row]:
    """How many there are of what, by corp. Sums that need no walk over customers or pairs."""
    return [
        {
            "corp_id": corp.corp_id,
            "staff": len(corp.people.staff),
            "staff_left": sum(member.status == LEFT for member in corp.people.staff.values()),
            "staff_banned": sum(
                member.banned or now_s < member.banned_until_s for member in corp.people.staff.values()
            ),
            "departments": len(corp.people.departments),
            "customers": corp.of(Scale).used,
            "relationships": corp.relations.count,
            "changes": len(corp.changes),
            "touches": len(corp.touches),
            "complaints": len(corp.complaints),
            "bills": corp.of(BillBook).total,
            "welcomes": len(corp.welcomes.issued),
        }
        for corp in corps.values()
    ]


def events(corps: Mapping[str, CorpWorld]) -> list[Row]:
    """Callbacks so far by Event and ChangeType, the most frequent first."""
    total: Counter[tuple[str, str]] = Counter()
    for corp in corps.values():
        total.update(corp.emitted)
    return [{"event": event, "change_type": kind, "count": count} for (event, kind), count in total.most_common()]


def counts(gateway: Gateway) -> dict[str, dict[str, int]]:
    """Endpoint → errcode → calls so far."""
    found: dict[str, dict[str, int]] = {}
    for (endpoint, code), count in sorted(gateway.call_counts.items()):
        found.setdefault(endpoint, {})[str(code)] = count
    return found


def quotas(gateway: Gateway, clock_s: float) -> list[Row]:
    """What every corp has used of every API's limits; ``blocked_s``: how long its block still lasts."""
    rows = []
    for usage in gateway.throttle.usage(clock_s):
        row = asdict(usage)
        until = row.pop("blocked_until_s")
        rows.append({**row, "blocked_s": round(max(0.0, until - clock_s), 3)})
    return rows


def faults(gateway: Gateway, clock_s: float) -> list[Row]:
    """The faults in force; ``ends_in_s`` 0: no end by time."""
    rows = []
    for fault in gateway.faults.standing:
        row = asdict(fault)
        until = row.pop("until_s")
        rows.append({**row, "ends_in_s": round(max(0.0, until - clock_s), 3) if until else 0.0})
    return rows


def numbered_call(number: int, call: RecordedCall) -> Row:
    """One call; written out because a download has hundreds of thousands of them."""
    return {
        "number": number,
        "time_ms": call.time_ms,
        "business_ms": call.business_ms,
        "endpoint": call.endpoint,
        "corp_id": call.corp_id,
        "agent_id": call.agent_id,
        "errcode": call.errcode,
    }


def select_calls(
    numbered: Iterator[tuple[int, RecordedCall]], wanted: Callable[[RecordedCall], bool], limit: int
) -> tuple[list[Row], int | None]:
    """``limit`` of the wanted calls (0: all), and the number at which the rest begins; None: nothing is left."""
    rows: list[Row] = []
    for number, call in numbered:
        if not wanted(call):
            continue
        if limit and len(rows) == limit:
            return rows, number
        rows.append(numbered_call(number, call))
    return rows, None


def deliveries(newest: Iterable[Delivery], limit: int) -> list[Row]:
    """The newest callbacks."""
    return [asdict(entry) for entry in islice(newest, limit)]


def payments(pay: PayApp, limit: int) -> Row:
    """What WeChat Pay has done. Merchants without their keys."""
    notices = pay.notifier.counts
    return {
        "merchants": [{"mchid": m.mchid, "corp_id": m.corp_id} for m in pay.merchants.values()],
        "notices": {**msgspec.to_builtins(notices), "waiting": notices.waiting},
        "errors": pay.broken,
        "counts": [
            {"endpoint": endpoint, "status": status, "count": count}
            for (endpoint, status), count in sorted(pay.call_counts.items())
        ],
        "calls": [asdict(call) for call in islice(reversed(pay.calls), limit)],
    }


def _relationship(corp_id: str, staff_id: str, customer_id: str, pair: Relationship) -> Row:
    return {
        "corp_id": corp_id,
        "staff_id": staff_id,
        "customer_id": customer_id,
        "status": pair.status,
        "staff_side": pair.staff_side,
        "customer_side": pair.customer_side,
        "channel": pair.channel,
        "episodes": [
            {
                "started_ms": e.started_s * 1000,
                "ended_ms": e.ended_s * 1000,
                "ended_by": e.ended_by,
                "channel": e.channel,
                "add_way": e.add_way,
            }
            for e in pair.episodes
        ],
    }


def _standing(corp: CorpWorld) -> Iterator[Row]:
    """Every pair the staff member has now, those of the opening too."""
    for staff_id, customer_id in corp.relations.standing():
        pair = corp.relations.get(staff_id, customer_id)
        if pair is not None:
            yield _relationship(corp.corp_id, staff_id, customer_id, pair)


def _changed(corp: CorpWorld) -> Iterator[Row]:
    """Every pair that anything has happened to, in order of the first time."""
    for (staff_id, customer_id), pair in corp.relations.changed.items():
        yield _relationship(corp.corp_id, staff_id, customer_id, pair)


def _changes(corp: CorpWorld) -> Iterator[Row]:
    return (asdict(change) for change in corp.changes)


def _bills(corp: CorpWorld) -> Iterator[Row]:
    return (asdict(bill) for bill in corp.of(BillBook).everything)


def _welcomes(corp: CorpWorld) -> Iterator[Row]:
    return (welcome.truth() for welcome in corp.welcomes.issued)


def _touches(corp: CorpWorld) -> Iterator[Row]:
    return ({"corp_id": corp.corp_id, **asdict(touch)} for touch in corp.touches)


def _complaints(corp: CorpWorld) -> Iterator[Row]:
    return ({"corp_id": corp.corp_id, **asdict(complaint)} for complaint in corp.complaints)


def _staff(corp: CorpWorld) -> Iterator[Row]:
    return ({"corp_id": corp.corp_id, **asdict(member)} for member in corp.people.staff.values())


def _app_messages(corp: CorpWorld) -> Iterator[Row]:
    """Messages of apps to staff, with those who were past their limit and got nothing (fact sheet 4.1)."""
    for message in corp.of(MessageBook).messages.values():
        yield {
            "corp_id": corp.corp_id,
            "msgid": message.msgid,
            "agent_id": message.agent_id,
            "time_ms": message.time_s * 1000,
            "msgtype": message.msgtype,
            "received": list(message.received),
            "dropped": message.dropped,
            "recalled_ms": message.recalled_s * 1000,
            "repeats": message.repeats,
        }


def _card_presses(corp: CorpWorld) -> Iterator[Row]:
    return ({"corp_id": corp.corp_id, **asdict(press)} for press in corp.of(MessageBook).cards.presses)


def _kf_sends(corp: CorpWorld) -> Iterator[Row]:
    """Customer-service messages through the API, and whether they arrived."""
    return ({"corp_id": corp.corp_id, **asdict(sent)} for sent in corp.of(KfDesk).sent.values())


def _bans(corp: CorpWorld) -> Iterator[Row]:
    return ({"corp_id": corp.corp_id, **asdict(ban)} for ban in corp.of(Discipline).bans)


LAZY_PARTS: Mapping[str, Callable[[CorpWorld], Iterator[Row]]] = {
    "standing": _standing,
    "changed": _changed,
    "changes": _changes,
    "bills": _bills,
    "welcomes": _welcomes,
    "sends": _touches,
    "complaints": _complaints,
    "staff": _staff,
    "app_messages": _app_messages,
    "card_presses": _card_presses,
    "kf_sends": _kf_sends,
    "bans": _bans,
}
"""Parts of the truth that are read row by row, however big the world is."""


def truth_page(
    simulation: Simulation, part: str, *, corp_id: str, customer: str, staff: str, offset: int, limit: int
) -> tuple[Any, int | None] | None:
    """Rows of one part from ``offset`` on, and where the next page begins (None at the end). None: no such part.

    The parts beside :data:`LAZY_PARTS` are those of the whole document (``GET /_sim/truth``), which is made for it.
    """
    if part in LAZY_PARTS:
        corps = [corp for corp in simulation.corps.values() if corp_id in ("", corp.corp_id)]
        rows: Iterable[Any] = (row for corp in corps for row in LAZY_PARTS[part](corp))
    else:
        found = simulation.truth().get(part)
        if found is None:
            return None
        if not isinstance(found, list):
            return found, None
        rows = (row for row in found if not corp_id or not isinstance(row, dict) or row.get("corp_id") == corp_id)
    if customer or staff:
        rows = (
            row
            for row in rows
            if isinstance(row, dict)
            and customer in ("", row.get("customer_id"))
            and staff in ("", row.get("staff_id", row.get("userid")))
        )
    page = list(islice(rows, offset, offset + limit + 1))
    return page[:limit], offset + limit if len(page) > limit else None
