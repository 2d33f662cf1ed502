"""The relationship state machine against a second, table-like reading of docs/definitions.md."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.world.relations import Change, ContactChange, ImpossibleChange, Relations, Relationship, played

CHANGES = get_args(Change)
steps = st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(2, 50), st.sampled_from(["", "a", "b"])), max_size=25)


def happened(wishes: list[tuple[Change, int, str]]) -> list[ContactChange]:
    """The wishes that are possible, each after the one before."""
    relationship, events, now = Relationship(), [], 1_000
    for change, gap, state in wishes:
        if relationship.possible(change):
            now += gap
            shown = state if change in ("add", "add_half") else ""
            event = ContactChange(now, "ww1", "s1", "c1", change, shown)
            relationship.apply(event)
            events.append(event)
    return events


@given(steps)
def test_status_follows_the_definitions(wishes):
    events = happened(wishes)
    relationship = Relationship()
    for event in events:
        relationship.apply(event)
    last = {change: max((i for i, e in enumerate(events) if e.change == change), default=-1) for change in CHANGES}
    deletions = ("delete_by_customer", "delete_by_staff", "delete_by_transfer")
    ends = max(last[d] for d in deletions)
    if last["add"] > ends:
        expected = "friend"
    elif last["add_half"] > max(ends, last["add"]):
        expected = "half"
    else:
        customer_gone = last["delete_by_customer"] > max(last["add"], last["add_half"])
        staff_index = max(last["delete_by_staff"], last["delete_by_transfer"])
        staff_gone = staff_index > last["add"]
        by_transfer = last["delete_by_transfer"] > last["delete_by_staff"]
        expected = {
            (True, True): "deleted_by_both",
            (True, False): "deleted_by_customer",
            (False, True): "transferred" if by_transfer else "deleted_by_staff",
            (False, False): "none",
        }[customer_gone, staff_gone]
    assert relationship.status == expected
    assert relationship.friend == (expected == "friend")


@given(steps)
def test_episodes_are_the_periods_between_adds_and_first_deletions(wishes):
    events = happened(wishes)
    expected: list[tuple[int, int, str]] = []
    for event in events:
        if event.change == "add":
            expected.append((event.time_s, 0, ""))
        elif event.change.startswith("delete_by_") and expected and not expected[-1][1]:
            expected[-1] = (expected[-1][0], event.time_s, event.change.removeprefix("delete_by_"))
    world = played(events)
    relationship = world.get(("ww1", "s1", "c1"), Relationship())
    assert [(e.started_s, e.ended_s, e.ended_by) for e in relationship.episodes] == expected


@given(steps)
def test_channel_is_the_first_one_named_since_the_last_episode_ended(wishes):
    named: list[str] = []
    arrived, shown = False, ""
    for event in happened(wishes):
        if event.change in ("add", "add_half"):
            arrived = True
            named.append(event.state)
        shown = next(filter(None, named), "") if arrived else shown
        if event.change.startswith("delete_by_") and relationship_was_friend(event, wishes):
            arrived, named = False, []
    world = played(happened(wishes))
    relationship = world.get(("ww1", "s1", "c1"), Relationship())
    assert relationship.channel == shown


def relationship_was_friend(event: ContactChange, wishes: list[tuple[Change, int, str]]) -> bool:
    friend = False
    for other in happened(wishes):
        if other.time_s == event.time_s:
            return friend
        if other.change == "add":
            friend = True
        elif other.change.startswith("delete_by_"):
            friend = False
    return friend


@given(steps)
def test_who_can_be_read_is_who_the_staff_member_has(wishes):
    world = Relations("ww1")
    for event in happened(wishes):
        relationship = world.apply(event)
        assert (world.customers_of("s1") == ["c1"]) == relationship.staff_side
        assert bool(world.followers_of("c1")) == relationship.staff_side


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ([], "delete_by_customer"),
        ([], "delete_by_staff"),
        ([], "edit"),
        (["add"], "add"),
        (["add_half"], "delete_by_staff"),
        (["add_half"], "delete_by_transfer"),
        (["add", "delete_by_customer"], "delete_by_customer"),
        (["add", "delete_by_staff"], "delete_by_staff"),
    ],
)
def test_what_the_platform_could_never_report_is_refused(before, change):
    relationship = Relationship()
    for number, earlier in enumerate(before):
        relationship.apply(ContactChange(100 + 2 * number, "ww1", "s1", "c1", earlier))
    with pytest.raises(ImpossibleChange) as refused:
        relationship.apply(ContactChange(200, "ww1", "s1", "c1", change))
    assert "s1" not in str(refused.value)
    assert "c1" not in str(refused.value)


def test_changes_closer_than_the_grain_can_order_are_refused():
    relationship = Relationship()
    relationship.apply(ContactChange(100, "ww1", "s1", "c1", "add"))
    with pytest.raises(ImpossibleChange):
        relationship.apply(ContactChange(101, "ww1", "s1", "c1", "delete_by_customer"))


def test_a_customer_who_deleted_us_stays_readable_and_one_deleted_by_staff_does_not():
    world = Relations("ww1")
    world.apply(ContactChange(100, "ww1", "s1", "c1", "add"))
    world.apply(ContactChange(110, "ww1", "s1", "c1", "delete_by_customer"))
    assert world.customers_of("s1") == ["c1"]
    world.apply(ContactChange(120, "ww1", "s1", "c1", "delete_by_staff"))
    assert world.customers_of("s1") == []
    assert world.changed["s1", "c1"].status == "deleted_by_both"


class Known:
    """An opening of a few friends, kept as plainly as can be."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = sorted(pairs)

    def customers_of(self, staff_id: str) -> list[str]:
        return [c for s, c in self._pairs if s == staff_id]

    def followers_of(self, customer_id: str) -> list[str]:
        return [s for s, c in self._pairs if c == customer_id]

    def relationship(self, staff_id: str, customer_id: str) -> Relationship | None:
        if (staff_id, customer_id) not in self._pairs:
            return None
        relationship = Relationship()
        relationship.apply(ContactChange(100, "ww1", staff_id, customer_id, "add", "store"))
        return relationship

    def pairs(self, start: int, count: int) -> list[tuple[str, str]]:
        return self._pairs[start : start + count]

    def __len__(self) -> int:
        return len(self._pairs)


people = st.tuples(st.sampled_from(["s1", "s2"]), st.sampled_from(["c1", "c2", "c3"]))


@given(st.lists(people, unique=True), st.lists(st.tuples(people, st.sampled_from(CHANGES)), max_size=40))
def test_an_opening_is_the_same_world_as_adds_long_ago(friends, wishes):
    over, plain = Relations("ww1", Known(friends)), Relations("ww1")
    for staff_id, customer_id in friends:
        plain.apply(ContactChange(100, "ww1", staff_id, customer_id, "add", "store"))
    for number, ((staff_id, customer_id), change) in enumerate(wishes):
        event = ContactChange(1_000 + 2 * number, "ww1", staff_id, customer_id, change)
        assert over.can(event) == plain.can(event)
        if over.can(event):
            assert over.apply(event) == plain.apply(event)
    for staff_id in ("s1", "s2"):
        assert over.customers_of(staff_id) == plain.customers_of(staff_id)
        assert over.count_of(staff_id) == len(over.customers_of(staff_id))
        for customer_id in ("c1", "c2", "c3"):
            assert over.get(staff_id, customer_id) == plain.get(staff_id, customer_id)
    for customer_id in ("c1", "c2", "c3"):
        assert over.followers_of(customer_id) == plain.followers_of(customer_id)
    assert sorted(over.standing()) == sorted(plain.standing())
