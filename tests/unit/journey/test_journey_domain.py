"""The journey of one customer ends the same whatever the order and number of deliveries, and as the definitions say."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.journey.domain import Customer, apply
from siyu.events import ContactEvent, OrderFact, PaymentEvent, RelationshipFact, StaffDelta, codec
from siyu.events.ids import contact_event_id, payment_event_id

CORP, CUSTOMER = "ww1", "wm-customer"
NOON = 1_767_240_000_000
"""2026-01-01 12:00 in Shanghai."""
HOUR = 3_600_000
CHANGES = (
    "add",
    "add_half",
    "edit",
    "delete_by_staff",
    "delete_by_transfer",
    "delete_by_customer",
    "transfer_fail",
    "archive_consent",
)


def contact(change: str, time_ms: int, staff_id: str = "s1", state: str = "", code: str = "") -> ContactEvent:
    return ContactEvent(
        event_id=contact_event_id(CORP, change, staff_id, CUSTOMER, time_ms, state, code),
        corp_id=CORP,
        change=change,
        staff_id=staff_id,
        customer_id=CUSTOMER,
        event_time_ms=time_ms,
        received_at_ms=time_ms + 700,
        state=state,
        welcome_code=code,
        fail_reason="",
    )


def paid(order_id: str, time_ms: int, amount_fen: int = 1000, staff_id: str = "s1", **changes: Any) -> PaymentEvent:
    fields: dict[str, Any] = {
        "event_id": payment_event_id(CORP, "paid", order_id, ""),
        "corp_id": CORP,
        "change": "paid",
        "customer_id": CUSTOMER,
        "order_id": order_id,
        "refund_id": "",
        "staff_id": staff_id,
        "amount_fen": amount_fen,
        "event_time_ms": time_ms,
        "received_at_ms": time_ms + 900,
        "source": "externalpay",
        "payment_type": 1,
        "personal": b'{"remark":"somebody"}',
    }
    return PaymentEvent(**(fields | changes))


def refunded(
    order_id: str, refund_id: str, time_ms: int, amount_fen: int = 100, staff_id: str = "s1", **changes: Any
) -> PaymentEvent:
    fields: dict[str, Any] = {
        "change": "refunded",
        "refund_id": refund_id,
        "event_id": payment_event_id(CORP, "refunded", order_id, refund_id),
    }
    return paid(order_id, time_ms, amount_fen, staff_id, **(fields | changes))


class Played:
    """The events applied one after the other, and everything that came out."""

    def __init__(self, events: list[Any]) -> None:
        self.state: Customer | None = None
        self.facts: list[RelationshipFact | OrderFact] = []
        self.deltas: list[StaffDelta] = []
        for event in events:
            self.play(event)

    def play(self, event: Any) -> list[Any]:
        before = self.state
        self.state, outputs = apply(before, event)
        facts = [o for o in outputs if not isinstance(o, StaffDelta)]
        deltas = [o for o in outputs if isinstance(o, StaffDelta)]
        assert outputs == [*facts, *deltas]
        assert [(d.staff_id, d.day) for d in deltas] == sorted({(d.staff_id, d.day) for d in deltas})
        assert all(d.counters and all(d.counters.values()) for d in deltas)
        assert all((o.received_at_ms, o.caused_by) == (event.received_at_ms, event.event_id) for o in outputs)
        self.facts += facts
        self.deltas += deltas
        return outputs

    @property
    def cells(self) -> dict[tuple[str, str, str], int]:
        cells: Counter[tuple[str, str, str]] = Counter()
        for delta in self.deltas:
            for counter, amount in delta.counters.items():
                cells[delta.staff_id, delta.day, counter] += amount
        assert all(amount >= 0 for amount in cells.values())
        return {cell: amount for cell, amount in cells.items() if amount}

    def relationship(self, staff_id: str = "s1") -> RelationshipFact:
        return [f for f in self.facts if isinstance(f, RelationshipFact) and f.staff_id == staff_id][-1]

    def order(self, order_id: str = "o1") -> OrderFact:
        return [f for f in self.facts if isinstance(f, OrderFact) and f.order_id == order_id][-1]


# What may happen to one customer. Times lie in two days on a coarse grid, so that ties in one second are common.
times = st.integers(0, 24).map(lambda step: NOON + step * 2 * HOUR)
staff = st.sampled_from(["s1", "s2", "s3"])
contacts = st.builds(
    contact,
    st.sampled_from(CHANGES),
    times,
    staff,
    st.sampled_from(["", "", "code-a", "code-b"]),
    st.sampled_from(["", "w1"]),
)
payments = st.builds(
    lambda order_id, time_ms, amount, collector: paid(order_id, time_ms, amount, collector),
    st.sampled_from(["o1", "o2", "o3"]),
    times,
    st.integers(1, 50_000),
    st.sampled_from(["", "", "s1", "s2"]),
)
refunds = st.builds(
    refunded,
    st.sampled_from(["o1", "o2", "o4"]),
    st.sampled_from(["r1", "r2", "r3"]),
    times,
    st.integers(1, 50_000),
    st.sampled_from(["", "s1", "s3"]),
)


def one_meaning_an_id(events: list[Any]) -> list[Any]:
    """Two bills of one number with two contents do not exist; the generator must not invent them."""
    return list({event.event_id: event for event in events}.values())


lives = st.lists(st.one_of(contacts, contacts, payments, refunds), min_size=1, max_size=14).map(one_meaning_an_id)
deliveries = lives.flatmap(
    lambda events: st.lists(st.sampled_from(events), max_size=8).flatmap(
        lambda repeats: st.permutations([*events, *repeats])
    )
)


@given(deliveries)
@settings(max_examples=800, deadline=None)
def test_facts_and_deltas_are_what_the_definitions_say(definitions: SimpleNamespace, events: list[Any]) -> None:
    played, truth = Played(events), definitions.from_scratch(events)
    rows = definitions.rows(played.facts)
    assert rows.relationships == truth.relationships
    assert rows.orders == truth.orders
    assert played.cells == truth.cells


@given(deliveries, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_any_other_order_of_arrival_ends_the_same(
    definitions: SimpleNamespace, events: list[Any], rng: random.Random
) -> None:
    others = [*events, *rng.sample(events, len(events) // 2)]
    rng.shuffle(others)
    one, other = Played(events), Played(others)
    assert definitions.rows(one.facts) == definitions.rows(other.facts)
    assert one.cells == other.cells


@given(deliveries)
@settings(max_examples=400, deadline=None)
def test_what_has_been_applied_once_changes_nothing_ever_again(events: list[Any]) -> None:
    played = Played(events)
    state = played.state
    for event in events:
        assert played.play(event) == []
        assert played.state is state


@given(deliveries)
@settings(max_examples=400, deadline=None)
def test_a_row_is_written_only_when_it_changes(events: list[Any]) -> None:
    last: dict[Any, Any] = {}
    played = Played([])
    for event in events:
        for fact in played.play(event):
            if isinstance(fact, StaffDelta):
                continue
            key = (type(fact), fact.staff_id if isinstance(fact, RelationshipFact) else fact.order_id)
            content = {
                name: getattr(fact, name)
                for name in fact.__struct_fields__
                if name not in ("revision", "received_at_ms", "caused_by")
            }
            assert content != last.get(key)
            last[key] = content


@given(deliveries)
@settings(max_examples=100, deadline=None)
def test_the_state_given_is_never_touched(events: list[Any]) -> None:
    state: Customer | None = None
    for event in events:
        before = msgspec.msgpack.encode(state)
        new, _ = apply(state, event)
        assert msgspec.msgpack.encode(state) == before
        # What the store keeps is all there is: a restart in between changes nothing.
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=Customer)
        assert state == new


@given(deliveries)
@settings(max_examples=100, deadline=None)
def test_every_output_fits_its_schema(events: list[Any]) -> None:
    played = Played(events)
    for output in [*played.facts, *played.deltas]:
        assert codec().decode(codec().encode(output)) == output


def test_a_thousand_shuffles_of_adds_deletions_and_readds_give_one_final_state(definitions: SimpleNamespace) -> None:
    life = [
        contact("add_half", NOON, state="door-code"),
        contact("add", NOON + 2_000, state="door-code"),
        contact("delete_by_customer", NOON + HOUR),
        contact("delete_by_staff", NOON + 2 * HOUR),
        contact("add", NOON + 3 * HOUR, state="parcel-card"),
        contact("add", NOON + 3 * HOUR, "s2"),
        contact("delete_by_staff", NOON + 30 * HOUR),
        contact("delete_by_customer", NOON + 31 * HOUR),
        contact("add", NOON + 40 * HOUR),
        contact("delete_by_transfer", NOON + 50 * HOUR),
        contact("add", NOON + 50 * HOUR, "s3"),
        paid("o1", NOON + HOUR // 2, 5_000, ""),
        paid("o2", NOON + 45 * HOUR, 7_000, ""),
        refunded("o2", "r1", NOON + 46 * HOUR, 500),
    ]
    rng = random.Random(1)
    truth = definitions.from_scratch(life)
    states = set()
    for _ in range(1_000):
        events = [*life, *rng.choices(life, k=rng.randrange(6))]
        rng.shuffle(events)
        played = Played(events)
        rows = definitions.rows(played.facts)
        assert (rows.relationships, rows.orders, played.cells) == (truth.relationships, truth.orders, truth.cells)
        assert played.state is not None
        states.add(
            (
                tuple(sorted((key, r.stamps, r.channels) for key, r in played.state.relationships.items())),
                tuple(sorted((key, o.payment, o.owner) for key, o in played.state.orders.items())),
            )
        )
    assert len(states) == 1


def test_fifty_scans_of_one_code_in_one_second_are_fifty_relationships() -> None:
    scans = [
        ContactEvent(
            event_id=contact_event_id(CORP, "add", "s1", f"wm{n}", NOON, "door-code", f"welcome{n}"),
            corp_id=CORP,
            change="add",
            staff_id="s1",
            customer_id=f"wm{n}",
            event_time_ms=NOON,
            received_at_ms=NOON + n,
            state="door-code",
            welcome_code=f"welcome{n}",
            fail_reason="",
        )
        for n in range(50)
    ]
    states: dict[str, Customer] = {}
    friends: set[str] = set()
    adds = 0
    for scan in [*scans, *scans]:
        states[scan.customer_id], outputs = apply(states.get(scan.customer_id), scan)
        for output in outputs:
            if isinstance(output, RelationshipFact):
                assert (output.status, output.channel) == ("friend", "door-code")
                friends.add(output.customer_id)
            if isinstance(output, StaffDelta):
                adds += output.counters["adds"]
    assert len(scans) == len({scan.event_id for scan in scans}) == len(friends) == adds == 50


def test_a_half_add_becomes_a_friendship_within_one_second() -> None:
    for events in ([0, 1], [1, 0]):
        pair = [contact("add_half", NOON, state="door-code"), contact("add", NOON)]
        played = Played([pair[n] for n in events])
        fact = played.relationship()
        assert (fact.status, fact.channel, fact.episodes_started_ms) == ("friend", "door-code", [NOON])
        assert played.cells == {("s1", "2026-01-01", "half_adds"): 1, ("s1", "2026-01-01", "adds"): 1}


@pytest.mark.parametrize(
    ("first", "second", "lost_by"),
    [("delete_by_customer", "delete_by_staff", "customer"), ("delete_by_staff", "delete_by_customer", "staff")],
)
def test_the_second_sides_deletion_is_no_second_loss(first: str, second: str, lost_by: str) -> None:
    life = [contact("add", NOON), contact(first, NOON + HOUR), contact(second, NOON + 2 * HOUR)]
    for arrival in (life, life[::-1]):
        played = Played(arrival)
        fact = played.relationship()
        assert fact.status == "deleted_by_both"
        assert (fact.staff_side, fact.customer_side) == (False, False)
        assert (fact.episodes_ended_ms, fact.episodes_ended_by) == ([NOON + HOUR], [lost_by])
        assert played.cells == {("s1", "2026-01-01", "adds"): 1, ("s1", "2026-01-01", f"lost_by_{lost_by}"): 1}


def test_a_customer_who_deleted_still_stands_on_the_staff_members_side() -> None:
    fact = Played([contact("add", NOON), contact("delete_by_customer", NOON + HOUR)]).relationship()
    assert (fact.status, fact.staff_side, fact.customer_side) == ("deleted_by_customer", True, False)


def test_a_transfer_moves_the_customer_and_later_sales() -> None:
    played = Played(
        [
            contact("add", NOON, "s1"),
            contact("delete_by_transfer", NOON + HOUR, "s1"),
            contact("add", NOON + HOUR, "s2"),
            paid("o1", NOON + HOUR, staff_id=""),
        ]
    )
    assert played.relationship("s1").status == "transferred"
    assert played.relationship("s2").status == "friend"
    assert (played.order().staff_id, played.order().credit_rule) == ("s2", "owner")


def test_edits_leave_one_row_for_a_pair_nothing_else_is_known_of() -> None:
    played = Played([contact("edit", NOON + HOUR), contact("edit", NOON), contact("transfer_fail", NOON + 2 * HOUR)])
    fact = played.relationship()
    assert (fact.status, fact.staff_side, fact.customer_side) == ("none", False, False)
    assert (fact.revision, fact.event_time_ms) == (2, NOON + 2 * HOUR)
    assert played.deltas == []
    played.play(contact("add", NOON))
    assert (played.relationship().status, played.relationship().event_time_ms) == ("friend", NOON)
    assert played.play(contact("edit", NOON + 9 * HOUR)) == []


def test_an_add_between_two_adds_shows_only_when_a_deletion_comes_between() -> None:
    played = Played([contact("add", NOON), contact("add", NOON + 4 * HOUR)])
    assert played.play(contact("add", NOON + 2 * HOUR)) == []
    played.play(contact("delete_by_customer", NOON + HOUR))
    assert played.relationship().episodes_started_ms == [NOON, NOON + 2 * HOUR]


def test_the_collector_is_credited_whoever_is_the_friend() -> None:
    played = Played([contact("add", NOON, "s2"), paid("o1", NOON + HOUR, 1_000, "s1")])
    assert (played.order().staff_id, played.order().credit_rule) == ("s1", "collector")


def test_a_late_event_decides_the_owner_anew_and_moves_the_refunds_too() -> None:
    played = Played(
        [
            contact("add", NOON, "s1"),
            paid("o1", NOON + 2 * HOUR, 1_000, ""),
            refunded("o1", "r1", NOON + 30 * HOUR, 300, "s9"),
        ]
    )
    assert played.order().staff_id == "s1"
    late = contact("add", NOON + HOUR, "s2")
    outputs = played.play(late)
    assert [type(o) for o in outputs] == [RelationshipFact, OrderFact, StaffDelta, StaffDelta, StaffDelta, StaffDelta]
    order = played.order()
    assert (order.staff_id, order.credit_rule, order.revision, order.caused_by) == ("s2", "owner", 3, late.event_id)
    assert [(d.staff_id, d.day, d.counters) for d in outputs[2:]] == [
        ("s1", "2026-01-01", {"orders": -1, "gross_fen": -1_000}),
        ("s1", "2026-01-02", {"refunds": -1, "refunded_fen": -300}),
        ("s2", "2026-01-01", {"adds": 1, "orders": 1, "gross_fen": 1_000}),
        ("s2", "2026-01-02", {"refunds": 1, "refunded_fen": 300}),
    ]
    # A later friendship leaves what was paid before it alone.
    assert [type(o) for o in played.play(contact("add", NOON + 3 * HOUR, "s3"))] == [RelationshipFact, StaffDelta]


def test_of_friends_since_the_same_second_the_smallest_staff_id_is_credited() -> None:
    friends = [contact("add", NOON, "s3"), contact("add", NOON, "s1"), contact("add", NOON - HOUR, "s0")]
    assert Played([*friends, paid("o1", NOON, 1, "")]).order().staff_id == "s1"
    assert Played([paid("o1", NOON, 1, ""), *friends]).order().staff_id == "s1"


def test_an_episode_without_duration_owns_nothing_and_an_end_is_not_part_of_it() -> None:
    zero = [contact("add", NOON), contact("delete_by_staff", NOON)]
    assert Played([*zero, paid("o1", NOON, 1, "")]).order().credit_rule == "none"
    ended = [contact("add", NOON), contact("delete_by_staff", NOON + HOUR)]
    assert Played([*ended, paid("o1", NOON + HOUR, 1, "")]).order().credit_rule == "none"
    assert Played([*ended, paid("o1", NOON + HOUR - 1, 1, "")]).order().staff_id == "s1"


def test_a_refund_before_its_payment_waits_apart() -> None:
    played = Played([refunded("o1", "r2", NOON + HOUR, 200, "s2"), refunded("o1", "r1", NOON + HOUR, 100, "s3")])
    order = played.order()
    assert (order.paid, order.gross_fen, order.refunded_fen, order.pay_time_ms) == (False, 0, 300, 0)
    assert (order.staff_id, order.credit_rule) == ("s3", "refunder")
    assert played.cells == {
        ("s2", "2026-01-01", "unmatched_refunds"): 1,
        ("s2", "2026-01-01", "unmatched_refund_fen"): 200,
        ("s3", "2026-01-01", "unmatched_refunds"): 1,
        ("s3", "2026-01-01", "unmatched_refund_fen"): 100,
    }
    played.play(paid("o1", NOON, 1_000, "s1"))
    order = played.order()
    assert (order.paid, order.gross_fen, order.staff_id, order.credit_rule) == (True, 1_000, "s1", "collector")
    assert played.cells == {
        ("s1", "2026-01-01", "orders"): 1,
        ("s1", "2026-01-01", "gross_fen"): 1_000,
        ("s1", "2026-01-01", "refunds"): 2,
        ("s1", "2026-01-01", "refunded_fen"): 300,
    }


def test_more_may_be_refunded_than_was_paid() -> None:
    order = Played([paid("o1", NOON, 100), refunded("o1", "r1", NOON + HOUR, 250)]).order()
    assert (order.gross_fen, order.refunded_fen) == (100, 250)


def test_a_payment_of_an_unknown_customer_counts_and_is_counted_apart() -> None:
    played = Played([paid("o1", NOON, 100, "s1", customer_id=""), refunded("o1", "r1", NOON, 40, customer_id="")])
    assert played.order().customer_id == ""
    assert played.cells == {
        ("s1", "2026-01-01", "orders"): 1,
        ("s1", "2026-01-01", "gross_fen"): 100,
        ("s1", "2026-01-01", "unknown_customer_orders"): 1,
        ("s1", "2026-01-01", "unknown_customer_gross_fen"): 100,
        ("s1", "2026-01-01", "refunds"): 1,
        ("s1", "2026-01-01", "refunded_fen"): 40,
    }


def test_a_sale_nobody_can_be_credited_with_counts_for_nobody() -> None:
    played = Played([paid("o1", NOON, 100, "")])
    assert (played.order().staff_id, played.order().credit_rule) == ("", "none")
    assert played.cells == {("", "2026-01-01", "orders"): 1, ("", "2026-01-01", "gross_fen"): 100}


def test_a_business_day_begins_at_midnight_in_shanghai() -> None:
    midnight = NOON - 12 * HOUR
    played = Played([paid("o1", midnight - 1, 1), paid("o2", midnight, 2)])
    assert [d.day for d in played.deltas] == ["2025-12-31", "2026-01-01"]


@pytest.mark.parametrize(
    "event",
    [
        paid("o1", NOON, 0),
        paid("o1", NOON, -5),
        paid("", NOON),
        paid("o1", NOON, refund_id="r1"),
        paid("o1", NOON, change="settled"),
        paid("o1", 0),
        paid("o1", 300_000_000_000_000),
        refunded("o1", "", NOON),
        refunded("o1", "r1", NOON, 0),
        contact("befriended", NOON),
        contact("add", NOON, staff_id=""),
        contact("add", -1),
    ],
)
def test_an_event_that_cannot_be_counted_is_refused_without_a_word_of_its_data(event: Any) -> None:
    with pytest.raises(ValueError) as refused:
        apply(None, event)
    for value in (CUSTOMER, "s1", "o1", "r1", "settled", "befriended", "somebody", str(event.event_time_ms)):
        assert value not in str(refused.value)


def test_nothing_personal_is_kept() -> None:
    played = Played([paid("o1", NOON), contact("add", NOON, code="a-welcome-code")])
    stored = msgspec.msgpack.encode(played.state)
    assert b"somebody" not in stored
    assert b"a-welcome-code" not in stored
