"""A real purchase history as a scenario: the file's customers join first, then its time is replayed. Pure.

The day before the file begins, at ×1: every customer of the file becomes a customer of the staff member the seed gives
them, with welcome codes, fifty of them in one second on one code; some are only half added, some part and some return.
From the file's first day on, compressed: every invoice a collection by the customer's staff member, every cancelled
line one or more refunds, and partings and returns spread over the whole time, without welcome codes, since chats had
started long before. Invoices without a customer are collected by a staff member that the seed gives that invoice.

Numbers: ``out_trade_no`` is the InvoiceNo; a refund without a known payment carries the cancellation's number instead;
``out_refund_no`` is ``<cancellation>-<line>-<part>``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from simulator.callbacks import OtherEvent
from simulator.retail_data import History
from simulator.scenario import CannotPlay, Plan
from simulator.scenario.cast import StaffChoice, customer_id, staff_by_corp
from simulator.scenario.diary import HALF_TO_CONFIRMED_S, SAME_SECOND, Diary
from simulator.world.bills import COLLECTION, REFUND, Bill
from siyu.events.business_time import business_day_start_ms

_DAY_S = 86_400
_OPENING_S = 9 * 3_600
_QR_CODE = 1


def replay_from_s(history: History) -> int:
    """Midnight (Asia/Shanghai) of the file's first day, epoch seconds."""
    return business_day_start_ms(history.first_s * 1000) // 1000


def opening_s(history: History) -> int:
    """09:00 of the day before: where the demo's clock begins, epoch seconds."""
    return replay_from_s(history) - _DAY_S + _OPENING_S


def plan_retail(
    history: History,
    *,
    seed: int,
    corps: Sequence[str],
    staff_count: int,
    join_s: int,
    start_s: int,
    bill_lag_ms: int,
) -> Plan:
    """Joins in the ``join_s`` seconds from ``start_s`` on (epoch seconds), which must end before the file's first day.

    Raises CannotPlay when they do not: the clock file is an old one.
    """
    replay_s = replay_from_s(history)
    if start_s + join_s >= replay_s:
        raise CannotPlay("the clock is already past the day before the file's first day: remove the old clock file")
    rng = random.Random(f"{seed}|retail")
    staff = staff_by_corp(rng, corps, staff_count)
    choice = StaffChoice(rng, staff)
    last_s = history.last_s

    retail_ids = list(history.retail_ids)
    rng.shuffle(retail_ids)
    poster_corp, poster_staff = choice.anybody()
    poster_s = start_s + join_s // 3
    diaries: dict[str, Diary] = {}
    for number, retail_id in enumerate(retail_ids):
        corp_id, staff_id = (poster_corp, poster_staff) if number < SAME_SECOND else choice.anybody()
        diary = diaries[retail_id] = Diary(corp_id, staff_id, customer_id(rng), start_s + join_s)
        if number < SAME_SECOND:
            diary.write(poster_s, "add", state="poster-entrance", welcome=True)
        else:
            _join(rng, diary, start_s, join_s)
        diary.end_s = last_s
        _the_year(rng, diary, replay_s)

    bills, unknown_invoices = _bills(rng, choice, diaries, history, bill_lag_ms)
    contacts = sorted(
        (change for diary in diaries.values() for change in diary.changes),
        key=lambda c: (c.time_s, c.corp_id, c.customer_id),
    )
    return Plan(
        scenario="retail",
        seed=seed,
        corps=tuple(corps),
        staff=staff,
        customers={c: frozenset(d.customer_id for d in diaries.values() if d.corp_id == c) for c in corps},
        contacts=tuple(contacts),
        others=(
            OtherEvent(
                start_s + 1, corps[0], (("Event", "change_external_tag"), ("Id", "et01"), ("ChangeType", "create"))
            ),
        ),
        bills=tuple(bills),
        replay_from_s=replay_s,
        retail={
            "customers": [
                {"retail_id": retail_id, "customer_id": d.customer_id, "staff_id": d.staff_id, "corp_id": d.corp_id}
                for retail_id, d in sorted(diaries.items())
            ],
            "unknown_invoices": unknown_invoices,
            "skipped": {reason: len(numbers) for reason, numbers in sorted(history.skipped.items())},
            "skipped_numbers": {reason: list(numbers) for reason, numbers in sorted(history.skipped.items())},
        },
    )


def _join(rng: random.Random, diary: Diary, start_s: int, join_s: int) -> None:
    """The first acquaintance, before the file begins."""
    time_s = start_s + 1 + int(rng.random() * (join_s - 2))
    state = rng.choice(("store-entrance", "parcel-card", "website", ""))
    fate = rng.random()
    if fate < 0.05:
        diary.write(time_s, "add_half", state=state, welcome=True)
        if rng.random() < 0.6:
            diary.write(diary.later(rng, HALF_TO_CONFIRMED_S), "add", state=state, welcome=True)
        return
    diary.write(time_s, "add", state=state, welcome=True)
    if fate < 0.09:
        diary.write(diary.later(rng), rng.choice(("delete_by_customer", "delete_by_customer", "delete_by_staff")))
        if rng.random() < 0.5:
            diary.write(diary.later(rng), "add", state="store-entrance", welcome=True)


def _the_year(rng: random.Random, diary: Diary, replay_s: int) -> None:
    """Partings and returns while the file's time runs."""
    if diary.relationship.status != "friend":
        return
    fate = rng.random()
    if fate >= 0.12:
        return
    time_s = rng.randint(replay_s, diary.end_s)
    diary.write(time_s, "delete_by_customer" if fate < 0.08 else "delete_by_staff")
    if rng.random() < 0.2:
        diary.write(diary.later(rng), "delete_by_staff" if fate < 0.08 else "delete_by_customer")
    if rng.random() < 0.4:
        diary.write(diary.later(rng), "add", state=rng.choice(("website", "")))


def _bills(
    rng: random.Random, choice: StaffChoice, diaries: dict[str, Diary], history: History, lag_ms: int
) -> tuple[list[Bill], list[dict[str, Any]]]:
    """Every invoice and every refund; and who collected the documents that name no customer."""
    bills: list[Bill] = []
    unknown: list[dict[str, Any]] = []
    strangers: dict[str, tuple[str, str]] = {}
    paid: dict[str, int] = {}

    def who(number: str, retail_id: str) -> tuple[str, str, str]:
        """corp, staff and customer of a document."""
        if retail_id:
            diary = diaries[retail_id]
            return diary.corp_id, diary.staff_id, diary.customer_id
        if number not in strangers:
            strangers[number] = corp_id, staff_id = choice.anybody()
            unknown.append({"invoice": number, "staff_id": staff_id, "corp_id": corp_id})
        return *strangers[number], ""

    for serial, invoice in enumerate(history.invoices, start=1):
        corp_id, staff_id, customer = who(invoice.number, invoice.retail_id)
        paid[invoice.number] = invoice.amount_fen
        bills.append(
            Bill(
                corp_id=corp_id,
                bill_type=COLLECTION,
                transaction_id=f"42{serial:014d}",
                time_s=invoice.time_s,
                visible_ms=invoice.time_s * 1000 + rng.randint(0, lag_ms),
                out_trade_no=invoice.number,
                amount_fen=invoice.amount_fen,
                payment_type=_QR_CODE,
                customer_id=customer,
                staff_id=staff_id,
            )
        )
    for serial, refund in enumerate(history.refunds, start=1):
        corp_id, staff_id, customer = who(refund.cancellation, refund.retail_id)
        bills.append(
            Bill(
                corp_id=corp_id,
                bill_type=REFUND,
                transaction_id=f"50{serial:014d}",
                time_s=refund.time_s,
                visible_ms=refund.time_s * 1000 + rng.randint(0, lag_ms),
                out_trade_no=refund.invoice or refund.cancellation,
                amount_fen=refund.amount_fen,
                payment_type=_QR_CODE,
                customer_id=customer,
                staff_id=staff_id,
                out_refund_no=refund.refund_id,
                paid_fen=paid.get(refund.invoice, 0),
            )
        )
    return sorted(bills, key=lambda b: (b.time_s, b.transaction_id)), unknown
