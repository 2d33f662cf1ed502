import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.executor.backlog import NO_DEADLINE, Backlog, Waiting


def everything(backlog: Backlog) -> list[Waiting]:
    taken = []
    while (waiting := backlog.pop()) is not None:
        taken.append(waiting)
    return taken


def prefixes_are_fair(turns: list[str], sizes: dict[str, int]) -> None:
    """While k shares wait, each had its turn as often as the others, give or take one."""
    taken: Counter[str] = Counter()
    for share in turns:
        waiting = [name for name, size in sizes.items() if taken[name] < size]
        counts = [taken[name] for name in waiting]
        assert max(counts) - min(counts) <= 1
        taken[share] += 1
    assert taken == Counter(sizes)


def test_an_empty_backlog_has_nothing() -> None:
    backlog = Backlog()
    assert (backlog.pop(), len(backlog), backlog.expired(1, 10), backlog.drain("c")) == (None, 0, [], [])


def test_without_shares_it_is_a_queue_by_deadline_and_then_by_arrival() -> None:
    backlog = Backlog()
    for number, deadline_ms in enumerate((300, 100, 0, 200, 100, 0)):
        backlog.push(number, deadline_ms)
    assert [(w.number, w.deadline_ms) for w in everything(backlog)] == [
        (1, 100),
        (4, 100),
        (3, 200),
        (0, 300),
        (2, NO_DEADLINE),
        (5, NO_DEADLINE),
    ]


shares = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 30), min_size=1)


@given(sizes=shares, seed=st.integers())
def test_campaigns_take_turns_whatever_their_sizes_and_order_of_arrival(sizes: dict[str, int], seed: int) -> None:
    arrivals = [name for name, size in sizes.items() for _ in range(size)]
    random.Random(seed).shuffle(arrivals)
    backlog = Backlog()
    for number, campaign in enumerate(arrivals):
        backlog.push(number, 0, campaign, "s1")
    prefixes_are_fair([waiting.campaign for waiting in everything(backlog)], sizes)


@given(sizes=shares, seed=st.integers())
def test_staff_of_a_campaign_take_turns(sizes: dict[str, int], seed: int) -> None:
    arrivals = [name for name, size in sizes.items() for _ in range(size)]
    random.Random(seed).shuffle(arrivals)
    backlog = Backlog()
    for number, staff in enumerate(arrivals):
        backlog.push(number, 0, "summer", staff)
    prefixes_are_fair([waiting.staff for waiting in everything(backlog)], sizes)


def test_a_campaign_of_many_staff_gets_no_more_turns_than_one_of_few() -> None:
    backlog = Backlog()
    for number in range(100):
        backlog.push(number, 0, "large", f"s{number}")
    for number in range(100, 110):
        backlog.push(number, 0, "small", "s1")
    first = [waiting.campaign for waiting in everything(backlog)][:20]
    assert Counter(first) == {"large": 10, "small": 10}


def test_who_comes_late_waits_one_round_and_not_for_the_backlog() -> None:
    backlog = Backlog()
    for number in range(1000):
        backlog.push(number, 0, "large", "s1")
    assert backlog.pop() is not None
    backlog.push(1000, 0, "late", "s1")
    assert "late" in [w.campaign for w in (backlog.pop(), backlog.pop()) if w is not None]


@given(deadlines=st.lists(st.integers(0, 50), min_size=1, max_size=60), seed=st.integers())
def test_inside_a_share_the_earliest_deadline_goes_first(deadlines: list[int], seed: int) -> None:
    dice = random.Random(seed)
    backlog = Backlog()
    for number, deadline_ms in enumerate(deadlines):
        backlog.push(number, deadline_ms, dice.choice("ab"), dice.choice("xy"))
    taken = everything(backlog)
    assert {waiting.number for waiting in taken} == set(range(len(deadlines)))
    for share in {(w.campaign, w.staff) for w in taken}:
        order = [(w.deadline_ms, w.number) for w in taken if (w.campaign, w.staff) == share]
        assert order == sorted(order)


def test_what_costs_five_turns_goes_once_in_five() -> None:
    backlog = Backlog()
    for number in range(40):
        backlog.push(number, 0, "costly", "s1", cost=5)
    for number in range(40, 140):
        backlog.push(number, 0, "cheap", "s1")
    spent: Counter[str] = Counter()
    for waiting in everything(backlog)[:100]:
        spent[waiting.campaign] += waiting.cost
        assert abs(spent["costly"] - spent["cheap"]) <= 5
    assert spent["costly"] > 50


def test_what_costs_much_goes_at_once_when_nobody_else_waits() -> None:
    backlog = Backlog()
    backlog.push(1, 0, "send", "s1", cost=15)
    assert backlog.pop() == Waiting(1, NO_DEADLINE, "send", "s1", 15)


def test_a_costly_action_of_one_staff_member_does_not_hold_the_others_of_the_campaign() -> None:
    backlog = Backlog()
    backlog.push(0, 0, "c", "slow", cost=4)
    for number in range(1, 9):
        backlog.push(number, 0, "c", "quick")
    order = [waiting.number for waiting in everything(backlog)]
    assert order[0] == 1
    assert 0 < order.index(0) < 8


def test_a_campaign_that_may_not_go_keeps_its_place_and_the_others_go_on() -> None:
    backlog = Backlog()
    for number, campaign in enumerate("aabbcc"):
        backlog.push(number, 0, campaign, "s1")
    taken = [backlog.pop(lambda campaign: campaign != "b") for _ in range(5)]
    assert [w.campaign if w else None for w in taken] == ["a", "c", "a", "c", None]
    assert [waiting.number for waiting in everything(backlog)] == [2, 3]


def test_nothing_goes_while_every_campaign_is_held() -> None:
    backlog = Backlog()
    backlog.push(1, 0, "a", "s1", cost=3)
    assert backlog.pop(lambda _: False) is None
    assert len(backlog) == 1


def test_only_what_can_no_longer_start_in_time_is_taken_out() -> None:
    backlog = Backlog()
    for number, deadline_ms in enumerate((99, 100, 0, 50)):
        backlog.push(number, deadline_ms, f"c{number % 2}", "s1")
    assert sorted(waiting.number for waiting in backlog.expired(100, 1000)) == [0, 3]
    assert backlog.expired(100, 1000) == []
    assert sorted(waiting.number for waiting in backlog.expired(101, 1000)) == [1]
    assert [waiting.number for waiting in everything(backlog)] == [2]


def test_a_small_budget_finds_all_that_is_late_in_a_few_rounds() -> None:
    backlog = Backlog()
    for number in range(100):
        backlog.push(number, 1, f"c{number % 10}", f"s{number % 7}")
    found: list[int] = []
    for _ in range(3 * 70):
        found += [waiting.number for waiting in backlog.expired(2, 1)]
    assert sorted(found) == list(range(100))
    assert (len(backlog), backlog.pop()) == (0, None)


def test_a_cancelled_campaign_is_taken_out_whole_and_no_other() -> None:
    backlog = Backlog()
    for number in range(30):
        backlog.push(number, 0, "ab"[number % 2], f"s{number % 3}", cost=1 + number % 2)
    assert sorted(waiting.number for waiting in backlog.drain("b")) == list(range(1, 30, 2))
    assert sorted(waiting.number for waiting in backlog.drain()) == list(range(0, 30, 2))
    assert (len(backlog), everything(backlog), backlog.drain()) == (0, [], [])


@pytest.mark.parametrize("campaigns", [1, 3])
def test_what_left_leaves_no_credit_behind(campaigns: int) -> None:
    """A campaign that was drained and comes back is no better off than one that is new."""
    backlog = Backlog()
    for number in range(campaigns):
        backlog.push(number, 0, f"c{number}", "s1", cost=9)
    backlog.push(90, 0, "other", "s1")
    assert backlog.pop() is not None
    for number in range(campaigns):
        backlog.drain(f"c{number}")
    backlog.push(100, 0, "c0", "s1", cost=3)
    for number in range(101, 110):
        backlog.push(number, 0, "other", "s1")
    order = [waiting.number for waiting in everything(backlog)]
    assert order.index(100) == 2


class AgainstAModel(RuleBasedStateMachine):
    """Whatever is done in whatever order: nothing is lost, nothing comes twice, and the shares' own order holds."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.model: dict[int, Waiting] = {}
        self.number = 0

    def gone(self, waiting: Waiting) -> None:
        assert self.model.pop(waiting.number) == waiting

    def share(self, waiting: Waiting) -> list[tuple[int, int]]:
        return sorted(
            (other.deadline_ms, other.number)
            for other in self.model.values()
            if (other.campaign, other.staff) == (waiting.campaign, waiting.staff)
        )

    @rule(
        deadline_ms=st.integers(0, 20),
        campaign=st.sampled_from("ab"),
        staff=st.sampled_from("xyz"),
        cost=st.integers(1, 4),
    )
    def push(self, deadline_ms: int, campaign: str, staff: str, cost: int) -> None:
        self.backlog.push(self.number, deadline_ms, campaign, staff, cost)
        self.model[self.number] = Waiting(self.number, deadline_ms or NO_DEADLINE, campaign, staff, cost)
        self.number += 1

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        waiting = self.backlog.pop()
        assert waiting is not None
        assert (waiting.deadline_ms, waiting.number) == self.share(waiting)[0]
        self.gone(waiting)

    @rule(held=st.sampled_from("ab"))
    def pop_while_a_campaign_is_held(self, held: str) -> None:
        waiting = self.backlog.pop(lambda campaign: campaign != held)
        assert (waiting is None) == all(other.campaign == held for other in self.model.values())
        if waiting is not None:
            assert waiting.campaign != held
            self.gone(waiting)

    @rule(now_ms=st.integers(0, 21), budget=st.integers(1, 8))
    def expire(self, now_ms: int, budget: int) -> None:
        late = {waiting.number for waiting in self.model.values() if waiting.deadline_ms < now_ms}
        for waiting in self.backlog.expired(now_ms, budget):
            assert waiting.number in late
            self.gone(waiting)

    @rule(campaign=st.sampled_from("ab"))
    def drain(self, campaign: str) -> None:
        waits = {waiting.number for waiting in self.model.values() if waiting.campaign == campaign}
        drained = self.backlog.drain(campaign)
        assert {waiting.number for waiting in drained} == waits
        for waiting in drained:
            self.gone(waiting)

    @invariant()
    def as_many_as_the_model(self) -> None:
        assert len(self.backlog) == len(self.model)


TestAgainstAModel = AgainstAModel.TestCase
