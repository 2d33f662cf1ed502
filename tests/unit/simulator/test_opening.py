"""A world that has been going on: who knows whom, sorted both ways, the same for a seed, with planted doubles."""

from collections import Counter

import numpy as np
import pytest

from simulator.world.identities import SIGNS, Identified
from simulator.world.opening import Channel, Columns, Population, make_columns, opened
from simulator.world.people import LEFT
from simulator.world.relations import MIN_GAP_S, Change, ContactChange, Relations

START = 1_760_000_000
POPULATION = Population(staff=40, customers=6_000, newcomers=500, group_only=200, second_share=0.2, third_share=0.05)
CHANNELS = (
    Channel(kind="live_code", share=0.5, state="store-{store:05d}"),
    Channel(kind="parcel_card", share=0.3, state="parcel-{number:03d}", numbers=12),
    Channel(kind="acquisition_link", share=0.1, state="link"),
    Channel(kind="counter", share=0.1),
)


def columns(seed: int = 1, **changes) -> Columns:
    population = Population(**{**{f: getattr(POPULATION, f) for f in POPULATION.__struct_fields__}, **changes})
    return make_columns(seed, "ww1", population, CHANNELS)


@pytest.fixture(scope="module")
def world():
    return opened(1, "ww1", columns(), START)


def test_both_directions_tell_the_same_pairs_sorted(world):
    past = world.acquaintances
    pairs = past.pairs(0, len(past))
    assert len(set(pairs)) == len(pairs)
    assert pairs == sorted(pairs)
    by_staff = [(s, c) for s in world.columns.staff_ids for c in past.customers_of(s)]
    assert by_staff == pairs
    followers: dict[str, list[str]] = {}
    for staff_id, customer_id in pairs:
        followers.setdefault(customer_id, []).append(staff_id)
    assert all(list(past.followers_of(customer_id)) == sorted(staff) for customer_id, staff in followers.items())
    assert len(followers) == past.people_count == 6_000


def test_pages_of_pairs_make_the_whole(world):
    past = world.acquaintances
    paged = [pair for start in range(0, len(past), 777) for pair in past.pairs(start, 777)]
    assert paged == list(past.pairs(0, len(past)))


def test_every_pair_has_been_friends_since_some_shop_hour_before_the_story(world):
    past = world.acquaintances
    for staff_id, customer_id in past.pairs(0, 2_000):
        pair = past.relationship(staff_id, customer_id)
        assert pair.friend
        assert pair.changed_s == pair.episodes[0].started_s < START - MIN_GAP_S
        assert 9 <= (pair.changed_s + 8 * 3_600) % 86_400 / 3_600 <= 22
        assert len(pair.channel) <= 30


def test_strangers_have_no_relationship(world):
    past, ids = world.acquaintances, world.columns.ids
    outsider = ids.id(6_000)
    assert outsider in world.people.known
    assert list(past.followers_of(outsider)) == []
    assert past.relationship("s00001", outsider) is None
    assert past.relationship("s00001", "wmnobody") is None
    assert list(past.customers_of("s99999")) == []
    assert ids.id(world.columns.size) not in world.people.known


def test_some_staff_have_far_more_customers_and_some_customers_several_staff(world):
    sizes = sorted(len(world.acquaintances.customers_of(s)) for s in world.columns.staff_ids)
    assert sizes[-1] > 4 * sizes[0]
    followers = Counter(np.diff(world.columns.first_of_customer).tolist())
    assert set(followers) == {1, 2, 3}
    assert 0.10 < (followers[2] + followers[3]) / 6_000 < 0.25


def test_channels_come_by_their_shares_and_name_store_and_batch(world):
    past = world.acquaintances
    states = [past.at(position).channel for position in range(len(past))]
    stores = {world.columns.store_of(n) for n in range(40)}
    assert {s for s in states if s.startswith("store-")} == {f"store-{store + 1:05d}" for store in stores}
    assert sum(s.startswith("parcel-") for s in states) / len(states) == pytest.approx(0.3, abs=0.03)
    assert {past.at(p).episodes[0].add_way for p in range(2_000)} == {1, 16}


def test_the_same_seed_opens_the_same_world_and_another_seed_another(world):
    again, other = opened(1, "ww1", columns(), START), opened(1, "ww1", columns(2), START)
    assert again.acquaintances.pairs(0, 500) == world.acquaintances.pairs(0, 500)
    assert other.acquaintances.pairs(0, 500) != world.acquaintances.pairs(0, 500)
    assert [s.name for s in again.people.staff.values()] == [s.name for s in world.people.staff.values()]


def test_another_start_moves_the_past_by_whole_days(world):
    later = opened(1, "ww1", world.columns, START + 3 * 86_400)
    assert later.acquaintances.at(7).changed_s - world.acquaintances.at(7).changed_s == 3 * 86_400


def test_staff_work_in_stores_below_regions():
    world = opened(1, "ww1", columns(staff=55, stores_per_region=2), START)
    departments = world.people.departments
    assert departments[1].parent == 0
    stores = Counter(member.departments for member in world.people.staff.values())
    assert len(stores) == 6
    for (store,) in stores:
        assert departments[departments[store].parent].parent == 1
    assert sorted(departments) == list(range(1, len(departments) + 1))


def test_a_world_over_the_opening_goes_on_as_usual(world):
    relations = Relations("ww1", world.acquaintances)
    staff_id, customer_id = world.acquaintances.pairs(0, 1)[0]

    def event(change: Change, at_s: int) -> ContactChange:
        return ContactChange(START + at_s, "ww1", staff_id, customer_id, change)

    assert not relations.can(event("add", 0))
    before = relations.count_of(staff_id)
    relations.apply(event("delete_by_customer", 0))
    assert relations.count_of(staff_id) == before
    relations.apply(event("delete_by_staff", 5))
    assert relations.count_of(staff_id) == before - 1
    assert customer_id not in relations.customers_of(staff_id)


@pytest.mark.parametrize("scale", [0.0001, 0.01, 1, 3])
def test_scaled_worlds_keep_somebody_of_each_kind(scale):
    scaled = POPULATION.scaled(scale)
    assert min(scaled.staff, scaled.customers, scaled.newcomers, scaled.group_only) >= 1
    parts = [scaled.of_corp(number, 3) for number in range(3)]
    assert sum(part.customers for part in parts) == scaled.customers
    assert all(part.staff >= 1 for part in parts)


def test_worlds_without_customers_or_with_one_open_too():
    for customers in (0, 1, 2):
        world = opened(1, "ww1", make_columns(1, "ww1", Population(staff=1, customers=customers), ()), START)
        assert world.acquaintances.people_count == customers
        assert len(world.acquaintances) == customers


# Identities


def test_twins_share_exactly_the_planted_sign_and_are_one_person(world):
    who = world.identities
    planted = list(who.planted())
    assert {sign for _, _, sign, same in planted if same} == set(SIGNS)
    for index, other, sign, same in planted:
        mine, theirs = who.signs(index), who.signs(other)
        shared = [s for s in SIGNS if getattr(mine, s) and getattr(mine, s) == getattr(theirs, s)]
        assert shared == [sign]
        assert (who.person(index) == who.person(other)) == same


def test_everybody_else_shares_nothing(world):
    who = world.identities
    concerned = {i for index, other, _, _ in who.planted() for i in (index, other)}
    for sign in SIGNS:
        seen = [s for i in range(6_700) if i not in concerned and (s := getattr(who.signs(i), sign))]
        assert len(set(seen)) == len(seen)


def test_the_truth_of_identities_names_ids_of_the_world(world):
    told = world.identities.truth()
    assert len(told["sign"]) == round(6_000 * 0.004) + round(6_000 * 0.002)
    assert all(customer in world.people.known for customer in told["customer_id"] + told["other_id"])
    assert told["same_person"].count(True) == round(6_000 * 0.004)


def test_a_person_looks_the_same_at_every_question_and_twins_look_alike(world):
    ids, people = world.columns.ids, world.people
    assert people.customer(ids.id(5)) == people.customer(ids.id(5))
    index, other = next((i, o) for i, o, _, same in world.identities.planted() if same)
    assert people.customer(ids.id(index)).name == people.customer(ids.id(other)).name


def test_unionids_lead_back_to_people_the_corp_has_met(world):
    people, ids = world.people, world.columns.ids
    unionid = people.customer(ids.id(3)).unionid
    assert people.id_of_unionid is not None
    assert people.id_of_unionid(unionid) == ids.id(3)
    assert people.id_of_unionid(world.identities.signs(6_300).unionid) is None  # will come later
    assert people.id_of_unionid("oznobody") is None


def test_wecom_users_have_a_company_and_no_unionid():
    world = opened(1, "ww1", columns(identities=Identified(wecom=0.5)), START)
    shown = [world.people.customer(world.columns.ids.id(i)) for i in range(300)]
    kinds = Counter(c.type for c in shown)
    assert min(kinds[1], kinds[2]) > 60
    assert all(bool(c.unionid) == (c.type == 1) == (not c.corp_name) for c in shown)


def test_staff_begin_as_people_who_serve(world):
    assert len(world.people.serving) == 40
    assert not any(member.status == LEFT for member in world.people.staff.values())
