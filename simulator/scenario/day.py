"""The invented day: joins, partings, returns, transfers, sales and refunds, planned from the seed alone. Pure.

Everything the figures have to survive is in it: fifty scans of one code in one second, half adds that are never
confirmed, both sides deleting, sales before and at the very second of an add, sales that name no payer or no
collector, several refunds of one order, late ones, and ones whose payment nobody knows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Annotated

import msgspec

from simulator.callbacks import OtherEvent
from simulator.scenario import Plan
from simulator.scenario.cast import StaffChoice, customer_id, staff_by_corp
from simulator.scenario.diary import HALF_TO_CONFIRMED_S, SAME_SECOND, Diary
from simulator.world.bills import COLLECTION, REFUND, Bill

_REFUND_REJECTED = 6
_LIVE_ROOM, _MINI_PROGRAM = 2, 15


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Day(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who plays the day, and how often what happens: shares of customers unless said otherwise."""

    staff: Annotated[int, msgspec.Meta(ge=1, le=99_999)] = 200
    customers: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5_000
    duration_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 100
    never_met_share: Share = 0.04
    half_share: Share = 0.10
    """First acquaintances that begin by half,"""
    half_confirmed_share: Share = 0.55
    """of which so many are confirmed,"""
    half_deleted_share: Share = 0.15
    """and so many end before."""
    console_welcome_share: Share = 0.10
    """Adds without a code: the console has a welcome of its own for that staff member."""
    second_staff_share: Share = 0.03
    edit_share: Share = 0.05
    archive_share: Share = 0.01
    deleted_by_customer_share: Share = 0.09
    deleted_by_staff_share: Share = 0.04
    transfer_share: Share = 0.03
    return_share: Share = 0.35
    """Of those who parted."""
    buyer_share: Share = 0.4
    near_change_share: Share = 0.06
    """Buy at, just before or just after a change of the relationship."""

    def __post_init__(self) -> None:
        if self.deleted_by_customer_share + self.deleted_by_staff_share + self.transfer_share > 1:
            raise ValueError("deleted_by_customer_share, deleted_by_staff_share and transfer_share: above 1 together")


def plan_day(
    *,
    seed: int,
    corps: Sequence[str],
    staff_count: int,
    customer_count: int,
    duration_s: int,
    start_s: int,
    bill_lag_ms: int,
    day: Day | None = None,
) -> Plan:
    """A day compressed into ``duration_s`` seconds from ``start_s`` on (epoch seconds)."""
    day = day or Day()
    rng = random.Random(f"{seed}|day")
    staff = staff_by_corp(rng, corps, staff_count)
    choice = StaffChoice(rng, staff)
    end_s = start_s + duration_s
    diaries: list[Diary] = []
    people: list[tuple[str, str]] = []
    poster_at = start_s + duration_s // 4
    poster_corp, poster_staff = choice.anybody()
    for number in range(customer_count):
        person = customer_id(rng)
        if number < SAME_SECOND:
            diary = Diary(poster_corp, poster_staff, person, end_s)
            diary.write(poster_at, "add", state="poster-entrance", welcome=True)
        else:
            corp_id, staff_id = choice.anybody()
            diary = Diary(corp_id, staff_id, person, end_s)
            if rng.random() >= day.never_met_share:
                _meet(rng, day, diary, start_s, duration_s)
        people.append((diary.corp_id, person))
        own = [diary, *_go_on(rng, day, choice, diary)]
        diaries.extend(own)
        other = choice.colleague(diary.corp_id, diary.staff_id)
        if rng.random() < day.second_staff_share and other is not None and other not in {d.staff_id for d in own}:
            second = Diary(diary.corp_id, other, person, end_s)
            _meet(rng, day, second, start_s, duration_s)
            diaries.append(second)
    contacts = sorted(
        (change for diary in diaries for change in diary.changes),
        key=lambda c: (c.time_s, c.corp_id, c.customer_id, c.staff_id),
    )
    return Plan(
        scenario="day",
        seed=seed,
        corps=tuple(corps),
        staff=staff,
        customers={c: frozenset(person for corp_id, person in people if corp_id == c) for c in corps},
        contacts=tuple(contacts),
        others=tuple(_others(rng, corps, start_s, duration_s)),
        bills=tuple(_Till(rng, day, choice, start_s, end_s, bill_lag_ms).bills(diaries)),
    )


def _meet(rng: random.Random, day: Day, diary: Diary, start_s: int, duration_s: int) -> None:
    """The first acquaintance: at once, or by halves."""
    time_s = start_s + 1 + int(rng.random() ** 1.3 * duration_s * 0.75)
    state = _channel(rng)
    if rng.random() >= day.half_share:
        diary.write(time_s, "add", state=state, welcome=rng.random() >= day.console_welcome_share)
        return
    diary.write(time_s, "add_half", state=state, welcome=True)
    fate = rng.random()
    if fate < day.half_confirmed_share:
        diary.write(diary.later(rng, HALF_TO_CONFIRMED_S), "add", state=state, welcome=True)
    elif fate < day.half_confirmed_share + day.half_deleted_share:
        diary.write(diary.later(rng), "delete_by_customer")


def _go_on(rng: random.Random, day: Day, choice: StaffChoice, diary: Diary) -> list[Diary]:
    """What becomes of friends; a transfer opens the diary of the new owner."""
    if diary.relationship.status != "friend":
        return []
    if rng.random() < day.edit_share:
        diary.write(diary.later(rng), "edit")
    if rng.random() < day.archive_share:
        diary.write(diary.later(rng), "archive_consent")
    fate = rng.random()
    by_customer = day.deleted_by_customer_share
    by_staff = by_customer + day.deleted_by_staff_share
    if fate < by_customer:
        diary.write(diary.later(rng), "delete_by_customer")
        if rng.random() < 0.3:
            diary.write(diary.later(rng), "delete_by_staff")
    elif fate < by_staff:
        diary.write(diary.later(rng), "delete_by_staff")
        if rng.random() < 0.3:
            diary.write(diary.later(rng), "delete_by_customer")
    elif fate < by_staff + day.transfer_share:
        colleague = choice.colleague(diary.corp_id, diary.staff_id)
        if colleague is not None:
            return _transfer(rng, diary, colleague)
    if diary.relationship.status != "friend" and rng.random() < day.return_share:
        _return(rng, diary)
    return []


def _transfer(rng: random.Random, diary: Diary, colleague: str) -> list[Diary]:
    """On-job inheritance: the old owner loses the customer, the new one gets an add without a code; or it fails."""
    new = Diary(diary.corp_id, colleague, diary.customer_id, diary.end_s)
    time_s = diary.later(rng)
    if rng.random() < 0.2:
        reason = rng.choice(("customer_refused", "customer_limit_exceed"))
        return [new] if new.write(time_s, "transfer_fail", fail_reason=reason) else []
    if not diary.write(time_s, "delete_by_transfer"):
        return []
    new.write(time_s + rng.randint(0, 1), "add")
    if rng.random() < 0.1:
        diary.write(diary.later(rng), "delete_by_customer")
    return [new]


def _return(rng: random.Random, diary: Diary) -> None:
    """The customer comes back, by another channel, at times only by half; some leave once more."""
    if rng.random() < 0.15:
        diary.write(diary.later(rng), "add_half", state=_channel(rng), welcome=True)
        if rng.random() < 0.6:
            diary.write(diary.later(rng, HALF_TO_CONFIRMED_S), "add", welcome=True)
        return
    # A relationship that one side kept is taken up again without the greeting.
    greeted = rng.random() < 0.7
    diary.write(diary.later(rng), "add", state=_channel(rng) if greeted else "", welcome=greeted)
    if rng.random() < 0.2:
        diary.write(diary.later(rng), "delete_by_customer")


def _channel(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return f"store-{rng.randint(1, 40):03d}"
    if kind < 0.85:
        return f"parcel-2026-{rng.randint(1, 12):02d}"
    return rng.choice(("video", "live-room", "acquisition-link", ""))


def _others(rng: random.Random, corps: Sequence[str], start_s: int, duration_s: int) -> list[OtherEvent]:
    """Events that change no relationship, one of them of a kind that does not exist yet."""
    events = []
    for number in range(max(4, duration_s // 10)):
        kind = number % 3
        if kind == 0:
            fields = [
                ("Event", "change_external_tag"),
                ("Id", f"et{rng.getrandbits(64):016x}"),
                ("TagType", "tag"),
                ("ChangeType", rng.choice(("create", "update", "delete"))),
            ]
        elif kind == 1:
            fields = [
                ("Event", "change_external_chat"),
                ("ChatId", f"wr{rng.getrandbits(64):016x}"),
                ("ChangeType", "create"),
            ]
        else:
            fields = [
                ("Event", "customer_moment_of_the_future"),
                ("ChangeType", "something_new"),
                ("Serial", f"{number}"),
            ]
        events.append(OtherEvent(start_s + rng.randint(1, duration_s), rng.choice(corps), tuple(fields)))
    return sorted(events, key=lambda event: (event.time_s, event.corp_id, event.fields))


class _Till:
    """Plans the day's bills."""

    def __init__(
        self, rng: random.Random, day: Day, choice: StaffChoice, start_s: int, end_s: int, lag_ms: int
    ) -> None:
        self._rng = rng
        self._day = day
        self._choice = choice
        self._start_s = start_s
        self._end_s = end_s
        self._lag_ms = lag_ms
        self._serial = 0
        self._bills: list[Bill] = []

    def bills(self, diaries: list[Diary]) -> list[Bill]:
        """Sales of some of the people met, ownerless orders around the seconds that decide, and refunds."""
        rng = self._rng
        for diary in diaries:
            if rng.random() < self._day.buyer_share:
                for _ in range(rng.choice((1, 1, 1, 2, 3))):
                    self._sale(diary)
            if diary.changes and rng.random() < self._day.near_change_share:
                # At, just before or just after a change: where "owner at pay time" is decided by one second.
                near = rng.choice(diary.changes).time_s + rng.choice((-1, 0, 0, 0, 1))
                self._pay(
                    diary, near, collector="", payer=diary.customer_id, kind=rng.choice((_LIVE_ROOM, _MINI_PROGRAM))
                )
        for _ in range(max(2, len(diaries) // 400)):
            corp_id, staff_id = self._choice.anybody()
            self._refund_of_unknown(corp_id, rng.choice((staff_id, staff_id, "")))
        return sorted(self._bills, key=lambda b: (b.time_s, b.corp_id, b.transaction_id))

    def _sale(self, diary: Diary) -> None:
        rng = self._rng
        time_s = rng.randint(self._start_s, self._end_s)
        collector, payer, kind, hidden = diary.staff_id, diary.customer_id, rng.choice((0, 1, 1, 1, 3, 14)), False
        fate = rng.random()
        if fate < 0.08:
            collector = self._choice.colleague(diary.corp_id, diary.staff_id) or collector
        elif fate < 0.18:
            collector, kind = "", rng.choice((_LIVE_ROOM, _MINI_PROGRAM))
        elif fate < 0.22:
            payer = ""
        elif fate < 0.225:
            collector, payer, kind = "", "", _MINI_PROGRAM
        elif fate < 0.255:
            hidden = True
        self._pay(diary, time_s, collector=collector, payer=payer, kind=kind, hidden=hidden)

    def _pay(self, diary: Diary, time_s: int, *, collector: str, payer: str, kind: int, hidden: bool = False) -> None:
        rng = self._rng
        paid = Bill(
            corp_id=diary.corp_id,
            bill_type=COLLECTION,
            transaction_id=self._number("42"),
            time_s=time_s,
            visible_ms=self._visible_ms(time_s),
            out_trade_no=self._number("T"),
            amount_fen=int(math.exp(rng.uniform(math.log(900), math.log(90_000)))),
            payment_type=kind,
            customer_id=payer,
            staff_id=collector,
            hidden=hidden,
        )
        self._bills.append(paid)
        fate = rng.random()
        if fate < 0.04:
            self._refund(paid, paid.amount_fen)
        elif fate < 0.11:
            self._refund(paid, rng.randint(1, paid.amount_fen))
        elif fate < 0.14:
            left = paid.amount_fen
            for _ in range(rng.randint(2, 4)):
                part = rng.randint(1, max(1, left // 2))
                if part <= left:
                    self._refund(paid, part)
                    left -= part
        elif fate < 0.15:
            self._refund(paid, paid.amount_fen, status=_REFUND_REJECTED)

    def _refund(self, paid: Bill, amount_fen: int, *, status: int = 2) -> None:
        rng = self._rng
        # Half of the refunds come late, in the last fifth of the day.
        late = self._end_s - (self._end_s - self._start_s) // 5
        first = max(paid.time_s + 1, late) if rng.random() < 0.5 else paid.time_s + 1
        time_s = rng.randint(first, max(first, self._end_s))
        refunder = paid.staff_id
        if refunder and rng.random() < 0.1:
            refunder = self._choice.colleague(paid.corp_id, refunder) or refunder
        self._bills.append(
            Bill(
                corp_id=paid.corp_id,
                bill_type=REFUND,
                transaction_id=self._number("50"),
                time_s=time_s,
                visible_ms=self._visible_ms(time_s),
                out_trade_no=paid.out_trade_no,
                amount_fen=amount_fen,
                payment_type=paid.payment_type,
                customer_id=paid.customer_id,
                staff_id=refunder,
                out_refund_no=self._number("R"),
                refund_status=status,
                paid_fen=paid.amount_fen,
                hidden=paid.hidden,
            )
        )

    def _refund_of_unknown(self, corp_id: str, staff_id: str) -> None:
        time_s = self._rng.randint(self._start_s, self._end_s)
        self._bills.append(
            Bill(
                corp_id=corp_id,
                bill_type=REFUND,
                transaction_id=self._number("50"),
                time_s=time_s,
                visible_ms=self._visible_ms(time_s),
                out_trade_no=self._number("X"),
                amount_fen=self._rng.randint(100, 20_000),
                payment_type=1,
                staff_id=staff_id,
                out_refund_no=self._number("R"),
            )
        )

    def _number(self, prefix: str) -> str:
        self._serial += 1
        return f"{prefix}{self._rng.randrange(10**8):08d}{self._serial:08d}"

    def _visible_ms(self, time_s: int) -> int:
        return time_s * 1000 + self._rng.randint(0, self._lag_ms)
