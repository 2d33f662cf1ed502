"""The paid scale of external contacts: fact sheet 5.1, 6.13."""

import random
from collections.abc import Sequence

import pytest

from simulator.world.corp import CorpWorld
from simulator.world.groups import Groups
from simulator.world.people import People
from simulator.world.relations import ContactChange, Episode, Relations, Relationship
from simulator.world.scale import PriceList, Purchase, Scale, Tier
from simulator.world.schedule import Schedule

YEAR_S = 365 * 86_400
START_S = 1_760_000_000
ENFORCED_S = 1_757_260_800


class Pairs:
    """An opening as a list of pairs."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = sorted(pairs)

    def customers_of(self, staff_id: str) -> Sequence[str]:
        return [customer for staff, customer in self._pairs if staff == staff_id]

    def followers_of(self, customer_id: str) -> Sequence[str]:
        return [staff for staff, customer in self._pairs if customer == customer_id]

    def relationship(self, staff_id: str, customer_id: str) -> Relationship | None:
        if (staff_id, customer_id) not in self._pairs:
            return None
        return Relationship(True, True, episodes=[Episode(START_S - 999, "")], changed_s=START_S - 999)

    def pairs(self, start: int, count: int) -> Sequence[tuple[str, str]]:
        return self._pairs[start : start + count]

    def __len__(self) -> int:
        return len(self._pairs)


class SaidPairs(Pairs):
    people_count = 41


def world(opening=None, **scale):
    customers = frozenset(f"wmC{n}" for n in range(50))
    return CorpWorld(
        "ww1",
        seed=1,
        people=People.of_ids(1, ["s1", "s2", "s3"], customers),
        relations=Relations("ww1", opening),
        schedule=Schedule(),
        send=lambda callback: None,
        rules={"scale": scale},
    )


def meet(corp, time_s, staff, customer, change="add"):
    return corp.happen(ContactChange(time_s, "ww1", staff, customer, change))


@pytest.mark.covers("fact:6.13")
def test_counted_are_distinct_people_among_friends_and_groups():
    """5.1: friends of any staff member and people only in groups, each once; half-added people are none yet."""
    corp = world()
    scale = corp.of(Scale)
    for staff, customer in [("s1", "wmC1"), ("s2", "wmC1"), ("s1", "wmC2")]:
        meet(corp, START_S, staff, customer)
    meet(corp, START_S, "s3", "wmC3", "add_half")
    assert scale.used == 2
    chat_id = corp.of(Groups).create("s1", ["wmC1", "wmC4", "wmC5"], START_S)
    assert (scale.friends, scale.used) == (2, 4)
    meet(corp, START_S + 5, "s3", "wmC4")
    assert (scale.friends, scale.used) == (3, 4)
    meet(corp, START_S + 9, "s1", "wmC1", "delete_by_staff")
    assert scale.used == 4  # s2 has the customer too
    meet(corp, START_S + 9, "s2", "wmC1", "delete_by_transfer")
    assert (scale.friends, scale.used) == (2, 4)  # still in the group
    corp.of(Groups).dismiss(chat_id, START_S + 20)
    assert scale.used == 2


@pytest.mark.covers("fact:6.13")
@pytest.mark.parametrize(("counts", "used"), [(True, 1), (False, 0)])
def test_whether_a_one_way_contact_counts_is_a_rule(counts, used):
    """5.1: not stated officially; by default who deleted us counts until the staff side deletes them too."""
    corp = world(one_way_counts=counts)
    scale = corp.of(Scale)
    meet(corp, START_S, "s1", "wmC1")
    meet(corp, START_S + 5, "s1", "wmC1", "delete_by_customer")
    assert scale.used == used
    meet(corp, START_S + 9, "s1", "wmC1", "delete_by_staff")
    assert scale.used == 0


@pytest.mark.covers("fact:6.13")
def test_the_count_follows_every_change_as_a_recount_would():
    """5.1: after any story the count is the number of distinct people, and contacts released are free at once."""
    rng = random.Random(4)
    opening = Pairs(list({(f"s{rng.randint(1, 3)}", f"wmC{rng.randrange(30)}") for _ in range(40)}))
    corp = world(opening)
    early = corp.of(Scale)
    for step in range(600):
        change = rng.choice(["add", "add", "add_half", "delete_by_customer", "delete_by_staff", "delete_by_transfer"])
        meet(corp, START_S + 3 * step, f"s{rng.randint(1, 3)}", f"wmC{rng.randrange(50)}", change)
        if step % 50 == 0:
            distinct = {customer for staff in corp.people.staff for customer in corp.relations.customers_of(staff)}
            assert early.used == len(distinct)
    assert Scale(corp).used == early.used  # one that begins late sees what happened before


@pytest.mark.covers("fact:6.13")
def test_an_opening_may_say_how_many_people_it_holds():
    """5.1: pairs are not people: an opening that knows its people is believed, another one is counted once."""
    pairs = [("s1", "wmC1"), ("s2", "wmC1"), ("s2", "wmC2")]
    assert world(Pairs(pairs)).of(Scale).used == 2
    assert world(SaidPairs(pairs)).of(Scale).used == 41


@pytest.mark.covers("fact:6.13")
def test_two_thousand_are_free_and_more_is_sold_in_jumping_tiers():
    """5.1: free 2,000; tiers such as 5,000 and 20,000 (an 8,000-contact corp must buy 20,000), 0.1 yuan a contact."""
    corp = world(SaidPairs([("s1", "wmC1")]), buys_itself=False)
    assert corp.of(Scale).size(START_S) == 2_000
    opening = SaidPairs([("s1", "wmC1")])
    opening.people_count = 8_000
    scale = world(opening).of(Scale)
    assert not scale.full(START_S)
    (bought,) = scale.purchases
    assert (bought.size, bought.price_fen) == (20_000, 200_000)
    assert (bought.from_s, bought.until_s) == (START_S, START_S + YEAR_S)
    assert scale.standing(START_S).size == 20_000
    assert scale.standing(START_S).until_s == START_S + YEAR_S


@pytest.mark.covers("fact:6.13")
def test_after_a_year_the_scale_falls_back_to_what_is_free():
    """5.1: term 1 year; on expiry the scale falls back to 2,000, and whoever has more is over it."""
    opening = SaidPairs([("s1", "wmC1")])
    opening.people_count = 3_000
    bought = {"size": 5_000, "from_s": START_S, "until_s": START_S + YEAR_S}
    scale = world(opening, buys_itself=False, purchased=[bought]).of(Scale)
    assert scale.purchases == [Purchase(5_000, START_S, START_S + YEAR_S)]
    assert not scale.full(START_S)
    assert scale.over(START_S + YEAR_S)
    assert not scale.may_add("wmC1", START_S + YEAR_S)
    assert scale.size(START_S + YEAR_S) == 2_000


@pytest.mark.covers("fact:6.13")
def test_a_full_corp_wins_no_new_friend():
    """5.1: over scale no new friends; at the limit somebody who counts already needs no further place."""
    prices = [{"since_s": 0, "free": 2, "tiers": []}]
    corp = world(prices=prices, buys_itself=False)
    scale = corp.of(Scale)
    meet(corp, START_S, "s1", "wmC1")
    assert not scale.full(START_S)
    meet(corp, START_S, "s1", "wmC2")
    assert scale.full(START_S)
    assert not scale.over(START_S)
    assert scale.may_add("wmC1", START_S)
    assert not scale.may_add("wmC3", START_S)
    assert not meet(corp, START_S, "s1", "wmC3")
    assert not meet(corp, START_S, "s1", "wmC3", "add_half")
    assert meet(corp, START_S, "s2", "wmC1")
    groups = corp.of(Groups)
    assert list(groups.get(groups.create("s1", ["wmC3", "wmC1"], START_S)).now.members) == ["s1", "wmC1"]
    groups.create("s1", ["wmC4"], START_S, tell=False)  # it was there before the story began
    assert scale.over(START_S)
    assert scale.is_served("wmC4")
    assert not scale.may_add("wmC4", START_S)
    assert not meet(corp, START_S + 5, "s2", "wmC4")
    meet(corp, START_S + 5, "s1", "wmC2", "delete_by_staff")
    assert not scale.over(START_S + 5)  # freed places are there at once


@pytest.mark.covers("fact:6.13")
def test_rules_are_dated():
    """5.1: enforced from 2025-09-08; price lists hold from their day on; an unverified corp has 100 and no more."""
    corp = world(
        prices=[
            {"since_s": 0, "free": 1, "tiers": [{"size": 5, "price_fen": 50}]},
            {"since_s": START_S + 100, "free": 1, "tiers": [{"size": 5, "price_fen": 70}]},
        ]
    )
    scale = corp.of(Scale)
    assert scale.rules.prices == (
        PriceList(0, 1, (Tier(5, 50),)),
        PriceList(START_S + 100, 1, (Tier(5, 70),)),
    )
    assert scale.rules.enforced_from_s == ENFORCED_S
    for customer in ("wmC1", "wmC2"):
        meet(corp, ENFORCED_S - 50, "s1", customer)
    assert not scale.full(ENFORCED_S - 1)
    assert scale.purchases == []
    assert not scale.full(START_S + 100)
    assert [purchase.price_fen for purchase in scale.purchases] == [70]
    came = [meet(corp, START_S + 200, "s1", f"wmC{number}") for number in range(3, 7)]
    assert came == [True, True, True, False]  # nothing larger is sold
    unverified = world(verified=False).of(Scale)
    assert unverified.size(START_S) == 100
