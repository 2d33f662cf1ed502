"""Actions: every distinct event that carries a welcome code must have led to exactly one action with a known end; parts
of actions (chunks, people, repeats) belong to an action that is known; nothing in the ledger stays open for long past
its deadline."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from siyu.audit.model import Contact, Key, Row
from siyu.audit.report import Difference, Section
from siyu.audit.warehouse import Found

ENDS = frozenset({"done", "already_done", "expired", "rejected", "failed", "cancelled", "suppressed", "blocked"})
SENT = frozenset({"done", "already_done"})
GRACE_MS = 3_600_000
"""A call may not start after its deadline, and its end is known soon after, or a person has to look."""


def check_welcomes(contacts: Iterable[Contact], outcomes: Found) -> Section:
    """Each welcome code against the ends of whole actions, by corp, staff member, customer and triggering event."""
    expected = {(c.corp_id, c.staff_id, c.customer_id, c.event_id): c for c in contacts if c.welcome_code}
    section = Section("actions", "raw", expected=len(expected))
    ends: dict[Key, list[Row]] = defaultdict(list)
    for (corp_id, action_id), row in outcomes:
        problem = _problem(row)
        if problem:
            section.add(Difference("different", problem, (corp_id, action_id)))
        if row["lane"] == "welcome":
            section.found += 1
            ends[corp_id, row["staff_id"], row["customer_id"], row["caused_by"]].append(row)
    for key, rows in ends.items():
        if key not in expected:
            for _ in rows:
                section.add(Difference("double", "a welcome that no welcome code explains", key))
        for _ in rows[1:] if key in expected else ():
            section.add(Difference("double", "a second welcome for one welcome code", key))
    for key in expected.keys() - ends.keys():
        section.add(Difference("lost", "no outcome for this welcome code", key))
    return section


def in_parts(outcomes: Found) -> tuple[Found, Found]:
    """Ends of whole actions, and those of parts. A repeated record's is a part: the action's own end is another."""
    whole = [(key, row) for key, row in outcomes if not row["parent_id"]]
    return whole, [(key, row) for key, row in outcomes if row["parent_id"]]


def check_parts(parts: Found, outcomes: Found, still_open: Found) -> Section:
    """Each part against the actions and chunks that have ended or are in the ledger: nothing else explains it."""
    section = Section("actions", "parts", expected=len(parts), found=len(parts))
    known = {key for key, _ in outcomes} | {key for key, _ in still_open}
    for (corp_id, action_id), row in parts:
        if (corp_id, row["parent_id"]) not in known:
            section.add(Difference("double", "a part of an action that nobody knows", (corp_id, action_id)))
        problem = _problem(row)
        if problem:
            section.add(Difference("different", problem, (corp_id, action_id)))
    return section


def check_ledger(still_open: Found, outcomes: Found, now_ms: int) -> Section:
    """What the ledger has open an hour past its deadline, and ids that two corps' outcomes share. ``now_ms`` business
    time. What WeCom accepted may wait for its results much longer."""
    section = Section("actions", "ledger", expected=len(still_open), found=len(still_open))
    for key, row in still_open:
        if row["state"] != "accepted" and 0 < row["deadline_ms"] < now_ms - GRACE_MS:
            what = "in doubt" if row["state"] == "in_doubt" else "open"
            section.add(Difference("different", f"still {what} an hour past its deadline", key))
    corps: dict[str, Key] = {}
    for key, _ in outcomes:
        if corps.setdefault(key[1], key) != key:
            section.add(Difference("double", "two outcomes of one action id", key))
    return section


def _problem(row: Row) -> str:
    if row["status"] not in ENDS:
        return "an end that is none of the closed set"
    if row["status"] not in SENT and not row["detail"] and not row["errcode"]:
        return "an action that was not carried out, without a reason"
    return ""


def welcome_ends(outcomes: Found) -> dict[str, int]:
    """How many welcomes ended how; those not sent by reason."""
    counts: Counter[str] = Counter()
    for _, row in outcomes:
        if row["lane"] == "welcome":
            status = row["status"]
            reason = row["detail"] or (f"errcode {row['errcode']}" if row["errcode"] else "")
            counts[status if status in SENT or not reason else f"{status} ({reason})"] += 1
    return dict(sorted(counts.items()))


def busiest_second(contacts: Iterable[Contact], pairs: set[Key], outcomes: Found) -> Row:
    """The most customers that scanned one code in one second, and what became of them."""
    scans: dict[tuple[str, str, int], set[tuple[str, str, str]]] = defaultdict(set)
    for c in contacts:
        if c.change == "add" and c.state:
            scans[c.corp_id, c.state, c.time_ms].add((c.staff_id, c.customer_id, c.event_id))
    if not scans:
        return {}
    (corp_id, _, _), most = max(scans.items(), key=lambda item: (len(item[1]), item[0]))
    welcomed = {
        (row["staff_id"], row["customer_id"], row["caused_by"])
        for (corp, _), row in outcomes
        if corp == corp_id and row["lane"] == "welcome" and row["status"] in SENT
    }
    return {
        "scans": len(most),
        "relationships": sum((corp_id, staff_id, customer_id) in pairs for staff_id, customer_id, _ in most),
        "welcomes": len(most & welcomed),
    }
