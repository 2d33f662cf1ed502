"""Ids by arithmetic: there and back, sorted as their order says, and made-up ones are known for what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.world.idspace import Ids, IdSpace, KnownIds, NumberSpace, Permutation, generator, key_of, uniform

SPACE = IdSpace(key_of(1, "customers"), prefix="wm", words=3)
indexes = st.integers(0, 50_000_000)


@given(indexes)
def test_an_id_leads_back_to_its_index(index):
    assert SPACE.index(SPACE.id(index)) == index
    assert len(SPACE.id(index)) == 32


@given(st.lists(indexes, max_size=30))
def test_many_are_spelt_as_one_is(some):
    assert SPACE.ids(np.array(some, dtype="i8")) == [SPACE.id(index) for index in some]


@given(st.lists(indexes, unique=True, max_size=50))
def test_ids_sort_as_their_order_says(some):
    array = np.array(some, dtype="i8")
    assert SPACE.ids(array[np.argsort(SPACE.order(array))]) == sorted(SPACE.ids(array))


@given(indexes, st.integers(2, 31), st.sampled_from("aZ09_-é "))
def test_an_id_with_another_letter_is_nobodys(index, place, letter):
    text = SPACE.id(index)
    changed = text[:place] + letter + text[place + 1 :]
    assert (SPACE.index(changed) is None) == (changed != text)


@given(st.text(max_size=40))
def test_any_text_may_be_asked_for(text):
    assert SPACE.index(text) is None


def test_who_is_known_is_a_question_of_the_size():
    known = KnownIds(SPACE, 1_000)
    assert SPACE.id(999) in known
    assert SPACE.id(1_000) not in known
    assert 7 not in known
    assert len(known) == 1_000


def test_a_sequence_of_ids_counts_without_spelling_and_slices():
    ids = Ids(SPACE, np.arange(100))
    assert len(ids) == 100
    assert list(ids) == [SPACE.id(index) for index in range(100)] == [*ids[:40], *ids[40:]]
    assert ids[3] == SPACE.id(3)
    assert SPACE.id(5) in ids
    assert SPACE.id(100) not in ids


def test_another_key_is_another_space():
    other = IdSpace(key_of(2, "customers"), prefix="wm", words=3)
    assert other.id(1) != SPACE.id(1)
    assert other.index(SPACE.id(1)) is None


@pytest.mark.parametrize("half_bits", [4, 14, 30])
def test_a_permutation_meets_every_number_once(half_bits):
    permutation, size = Permutation(key_of("p"), half_bits), min(1 << (2 * half_bits), 4_096)
    met = permutation.forth(np.arange(size, dtype=np.uint64))
    assert len(set(met.tolist())) == size
    assert max(met.tolist()) < 1 << (2 * half_bits)
    assert permutation.back(met).tolist() == list(range(size))
    assert [permutation.forth(number) for number in range(20)] == met[:20].tolist()


def test_numbers_have_eight_digits_and_are_everybodys_own():
    space = NumberSpace(key_of("phone"), "199")
    numbers = {space.number(index) for index in range(5_000)}
    assert len(numbers) == 5_000
    assert all(len(number) == 11 and number.startswith("199") for number in numbers)


def test_traits_are_even_and_depend_on_their_key():
    traits = uniform(np.arange(100_000), key_of("a"))
    assert traits.min() >= 0
    assert traits.max() < 1
    assert abs(traits.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(traits, uniform(np.arange(100_000), key_of("b")))[0, 1]) < 0.02


def test_chance_for_many_comes_from_the_seed_alone():
    assert generator(1, "x").random(3).tolist() == generator(1, "x").random(3).tolist()
    assert generator(1, "x").random() != generator(2, "x").random()
