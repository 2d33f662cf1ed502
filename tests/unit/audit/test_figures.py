"""The recomputation itself, against docs/definitions.md sentence by sentence."""

from hypothesis import given
from hypothesis import strategies as st

from siyu.audit.figures import RANK, orders, relationship, relationships, staff_days
from siyu.audit.model import Contact, Episode, Payment, Refund

T = 1_772_330_400_000  # 2026-03-01 10:00 in Shanghai
HOUR = 3_600_000
DAY = 24 * HOUR


def contact(change: str, time_ms: int, state: str = "", staff: str = "s1", customer: str = "c1") -> Contact:
    return Contact("ww", staff, customer, change, time_ms, state, "", f"{staff}{customer}{change}{time_ms}{state}")


def paid(order: str, time_ms: int, fen: int, collector: str = "", customer: str = "c1") -> Payment:
    return Payment("ww", order, customer, collector, time_ms, fen, 1)


def refunded(order: str, number: str, time_ms: int, fen: int, staff: str = "s1", customer: str = "c1") -> Refund:
    return Refund("ww", order, number, customer, staff, time_ms, fen)


def money(payments, refunds, contacts):
    pairs = relationships(contacts)
    rows, refunds_of = orders({(p.corp_id, p.order_id): p for p in payments}, refunds, pairs)
    return rows, staff_days(pairs, rows, refunds_of)


def test_a_customer_who_deletes_ends_the_episode_and_staff_still_has_them():
    pair = relationship([contact("add", T, "poster"), contact("delete_by_customer", T + HOUR)])
    assert pair.status == "deleted_by_customer"
    assert (pair.staff_side, pair.customer_side) == (True, False)
    assert pair.episodes == (Episode(T, T + HOUR, "customer"),)
    assert pair.channel == "poster"


def test_the_second_side_that_deletes_ends_no_second_episode():
    events = [contact("add", T), contact("delete_by_customer", T + HOUR), contact("delete_by_staff", T + 2 * HOUR)]
    pair = relationship(events)
    assert pair.status == "deleted_by_both"
    assert len(pair.episodes) == 1


def test_a_half_add_is_half_until_confirmed_and_counts_once():
    half = relationship([contact("add_half", T, "qr"), contact("add_half", T + 1000)])
    assert (half.status, half.customer_side, half.staff_side, half.half_adds_ms) == ("half", True, False, (T,))
    friend = relationship([contact("add_half", T, "qr"), contact("add", T + 2000, "other")])
    assert (friend.status, friend.channel, friend.half_adds_ms) == ("friend", "qr", (T,))


def test_a_new_episode_has_its_own_channel_and_an_ended_one_keeps_its():
    events = [contact("add", T, "spring"), contact("delete_by_staff", T + HOUR)]
    assert relationship(events).channel == "spring"
    assert relationship([*events, contact("add_half", T + 2 * HOUR)]).channel == ""
    assert relationship([*events, contact("add", T + 2 * HOUR, "summer")]).channel == "summer"


def test_a_pair_that_was_only_edited_has_a_row_without_any_side():
    pair = relationship([contact("edit", T)])
    assert (pair.status, pair.staff_side, pair.customer_side, pair.event_time_ms) == ("none", False, False, T)


def test_within_a_second_the_rank_decides():
    assert relationship([contact("delete_by_staff", T), contact("add", T)]).status == "deleted_by_staff"


def test_transferred_is_told_apart_from_deleted():
    assert relationship([contact("add", T), contact("delete_by_transfer", T + HOUR)]).status == "transferred"


def test_credit_goes_to_the_collector_then_to_the_latest_friend_then_to_nobody():
    contacts = [
        contact("add", T, staff="s1"),
        contact("add", T + HOUR, staff="s2"),
        contact("delete_by_customer", T + 3 * HOUR, staff="s2"),
    ]
    payments = [
        paid("collected", T + 2 * HOUR, 100, "s9"),
        paid("two friends", T + 2 * HOUR, 100),
        paid("after the second left", T + 3 * HOUR, 100),
        paid("before anyone", T - 1, 100),
        paid("nobody knows who", T + 2 * HOUR, 100, customer=""),
    ]
    rows, days = money(payments, [], contacts)
    credit = {key[1]: (row["staff_id"], row["credit_rule"]) for key, row in rows.items()}
    assert credit == {
        "collected": ("s9", "collector"),
        "two friends": ("s2", "owner"),
        "after the second left": ("s1", "owner"),
        "before anyone": ("", "none"),
        "nobody knows who": ("", "none"),
    }
    nobody = days["ww", "", "2026-03-01"]
    assert (nobody["orders"], nobody["unknown_customer_orders"]) == (2, 1)


def test_refunds_follow_the_order_and_fall_on_their_own_day():
    rows, days = money([paid("o1", T, 1000, "s1")], [refunded("o1", "r1", T + DAY, 300, "s2")], [])
    assert rows["ww", "o1"]["net_fen"] == 700
    assert days["ww", "s1", "2026-03-02"]["refunded_fen"] == 300
    assert ("ww", "s2", "2026-03-02") not in days


def test_a_refund_without_its_payment_is_kept_apart():
    rows, days = money([], [refunded("o1", "r2", T, 300, "s2"), refunded("o1", "r1", T, 50, "s1")], [])
    row = rows["ww", "o1"]
    assert (row["paid"], row["gross_fen"], row["net_fen"], row["staff_id"]) == (False, 0, -350, "s1")
    assert row["credit_rule"] == "refunder"
    assert days["ww", "s2", "2026-03-01"]["unmatched_refund_fen"] == 300
    assert days["ww", "s2", "2026-03-01"]["refunds"] == 0


def test_the_business_day_is_shanghais():
    _, days = money([paid("late", T + 14 * HOUR - 1, 1, "s1"), paid("midnight", T + 14 * HOUR, 1, "s1")], [], [])
    assert {key[2] for key in days} == {"2026-03-01", "2026-03-02"}


events_of_a_pair = st.lists(
    st.builds(
        contact,
        st.sampled_from(sorted(RANK)),
        st.integers(0, 12).map(lambda second: T + 1000 * second),
        st.sampled_from(["", "a", "b"]),
    ),
    min_size=1,
    max_size=12,
)


@given(events_of_a_pair, st.randoms(use_true_random=False))
def test_order_and_repetition_of_arrival_change_nothing(events, random):
    again = events + random.choices(events, k=3)
    random.shuffle(again)
    # What repeats is dropped when callbacks are read; within a pair it would not even matter.
    assert relationship(again) == relationship(events)


@given(events_of_a_pair)
def test_episodes_never_overlap_and_every_status_has_its_sides(events):
    pair = relationship(events)
    ends = [e.ended_ms for e in pair.episodes]
    assert all(ends[:-1]), "only the last episode may be open"
    for before, after in zip(pair.episodes, pair.episodes[1:], strict=False):
        assert before.started_ms <= before.ended_ms <= after.started_ms
    if pair.status == "friend":
        assert pair.staff_side
        assert pair.customer_side
    if pair.status in ("deleted_by_both", "deleted_by_customer"):
        assert not pair.customer_side
    assert sum(1 for e in pair.episodes if not e.ended_ms) == (pair.status == "friend")
