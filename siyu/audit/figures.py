"""docs/definitions.md, written down once more: from distinct events to relationships, credited orders and staff days.

Pure: the same input always gives the same rows, in any order of arrival.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from siyu.audit.model import COUNTERS, Contact, Episode, Key, Payment, Refund, Relationship, Row, Rows, business_day

# Order within one second, the grain of the platform's clock.
RANK = {
    "add_half": 0,
    "add": 1,
    "edit": 2,
    "transfer_fail": 2,
    "archive_consent": 2,
    "delete_by_customer": 3,
    "delete_by_staff": 4,
    "delete_by_transfer": 5,
}
_WITHOUT_EFFECT = ("edit", "transfer_fail", "archive_consent")
_ENDED_BY = {"delete_by_customer": "customer", "delete_by_staff": "staff", "delete_by_transfer": "transfer"}


def relationship(events: Iterable[Contact]) -> Relationship:
    """One pair's relationship from its distinct events, given in any order."""
    episodes: list[Episode] = []
    half_adds_ms: list[int] = []
    open_since: int | None = None
    half = False
    staff_side = customer_side = False
    gone = {"customer": "", "staff": ""}  # side → what took it away; empty: not gone
    channel = ""
    window_is_new = True  # no add or half add yet since the previous episode ended

    events = sorted(events, key=lambda e: (e.time_ms, RANK[e.change], e.state))
    for event in events:
        if event.change in ("add", "add_half"):
            if window_is_new:
                channel, window_is_new = "", False
            channel = channel or event.state
            customer_side, gone["customer"] = True, ""
        if event.change == "add":
            staff_side, gone["staff"] = True, ""
            half = False
            if open_since is None:
                open_since = event.time_ms
        elif event.change == "add_half":
            if open_since is None and not half:
                half = True
                half_adds_ms.append(event.time_ms)
        elif event.change in _ENDED_BY:
            by = _ENDED_BY[event.change]
            half = False
            if by == "customer":
                customer_side, gone["customer"] = False, by
            else:
                staff_side, gone["staff"] = False, by
            if open_since is not None:
                episodes.append(Episode(open_since, event.time_ms, by))
                open_since, window_is_new = None, True

    if open_since is not None:
        episodes.append(Episode(open_since, 0, ""))
        status = "friend"
    elif half:
        status = "half"
    elif gone["customer"] and gone["staff"]:
        status = "deleted_by_both"
    elif gone["customer"]:
        status = "deleted_by_customer"
    elif gone["staff"]:
        status = "transferred" if gone["staff"] == "transfer" else "deleted_by_staff"
    else:
        status = "none"
    telling = [event.time_ms for event in events if event.change not in _WITHOUT_EFFECT]
    newest_ms = max(telling or [event.time_ms for event in events])
    return Relationship(status, staff_side, customer_side, channel, tuple(episodes), tuple(half_adds_ms), newest_ms)


def relationships(contacts: Iterable[Contact]) -> dict[Key, Relationship]:
    """Every pair that any event named, by (corp, staff, customer)."""
    by_pair: dict[Key, list[Contact]] = defaultdict(list)
    for contact in contacts:
        by_pair[contact.corp_id, contact.staff_id, contact.customer_id].append(contact)
    return {pair: relationship(events) for pair, events in by_pair.items()}


def orders(
    payments: Mapping[Key, Payment], refunds: Iterable[Refund], pairs: Mapping[Key, Relationship]
) -> tuple[Rows, dict[Key, list[Refund]]]:
    """Every order by (corp, order), with the staff member it is credited to; and each order's refunds by time."""
    staff_of: dict[Key, list[tuple[str, Relationship]]] = defaultdict(list)
    for (corp_id, staff_id, customer_id), pair in pairs.items():
        staff_of[corp_id, customer_id].append((staff_id, pair))
    refunds_of: dict[Key, list[Refund]] = defaultdict(list)
    for refund in refunds:
        refunds_of[refund.corp_id, refund.order_id].append(refund)
    for those in refunds_of.values():
        those.sort(key=lambda r: (r.time_ms, r.refund_id))

    rows: Rows = {}
    for key in payments.keys() | refunds_of.keys():
        those = refunds_of.get(key, [])
        payment = payments.get(key)
        if payment is not None:
            staff_id, rule = _credit(payment, staff_of[payment.corp_id, payment.customer_id])
        else:
            staff_id = those[0].staff_id
            rule = "refunder" if staff_id else "none"
        gross = payment.amount_fen if payment else 0
        refunded = sum(r.amount_fen for r in those)
        rows[key] = {
            "customer_id": payment.customer_id if payment else those[0].customer_id,
            "staff_id": staff_id,
            "credit_rule": rule,
            "paid": payment is not None,
            "pay_time_ms": payment.time_ms if payment else 0,
            "gross_fen": gross,
            "refunded_fen": refunded,
            "net_fen": gross - refunded,
            "refunds": [[r.refund_id, r.time_ms, r.amount_fen] for r in those],
            "payment_type": payment.payment_type if payment else 0,
            "event_time_ms": max([r.time_ms for r in those] + ([payment.time_ms] if payment else [])),
        }
    return rows, dict(refunds_of)


def _credit(payment: Payment, staff: list[tuple[str, Relationship]]) -> tuple[str, str]:
    if payment.collector_id:
        return payment.collector_id, "collector"
    if payment.customer_id:
        friends = [
            (-episode.started_ms, staff_id)
            for staff_id, pair in staff
            for episode in pair.episodes
            if episode.covers(payment.time_ms)
        ]
        if friends:
            return min(friends)[1], "owner"
    return "", "none"


def staff_days(pairs: Mapping[Key, Relationship], order_rows: Rows, refunds_of: Mapping[Key, list[Refund]]) -> Rows:
    """Every (corp, staff, day) with anything to count; the empty staff id is the row of uncredited sales."""
    days: dict[Key, Row] = defaultdict(lambda: dict.fromkeys(COUNTERS, 0))

    def count(corp_id: str, staff_id: str, time_ms: int, **changes: int) -> None:
        row = days[corp_id, staff_id, business_day(time_ms)]
        for name, change in changes.items():
            row[name] += change

    for (corp_id, staff_id, _), pair in pairs.items():
        for time_ms in pair.half_adds_ms:
            count(corp_id, staff_id, time_ms, half_adds=1)
        for episode in pair.episodes:
            count(corp_id, staff_id, episode.started_ms, adds=1)
            if episode.ended_ms:
                count(corp_id, staff_id, episode.ended_ms, **{f"lost_by_{episode.ended_by}": 1})

    for key, order in order_rows.items():
        corp_id = key[0]
        if order["paid"]:
            gross = order["gross_fen"]
            count(corp_id, order["staff_id"], order["pay_time_ms"], orders=1, gross_fen=gross)
            if not order["customer_id"]:
                unknown = {"unknown_customer_orders": 1, "unknown_customer_gross_fen": gross}
                count(corp_id, order["staff_id"], order["pay_time_ms"], **unknown)
        for refund in refunds_of.get(key, []):
            if order["paid"]:
                count(corp_id, order["staff_id"], refund.time_ms, refunds=1, refunded_fen=refund.amount_fen)
            else:
                unmatched = {"unmatched_refunds": 1, "unmatched_refund_fen": refund.amount_fen}
                count(corp_id, refund.staff_id, refund.time_ms, **unmatched)
    return {key: row for key, row in days.items() if any(row.values())}
