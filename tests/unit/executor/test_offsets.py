import random

from hypothesis import given
from hypothesis import strategies as st

from services.executor.offsets import OffsetTracker

offsets = st.sets(st.integers(0, 400), min_size=1)


class SetModel:
    """The same, as plainly as it can be said."""

    def __init__(self, base: int) -> None:
        self.base = self.next = base
        self.open: set[int] = set()

    def taken(self, offset: int) -> bool:
        if offset < self.next:
            return False
        self.next = offset + 1
        self.open.add(offset)
        return True

    @property
    def low(self) -> int:
        return min(self.open, default=self.next)


def test_nothing_may_be_committed_before_it_is_done_with() -> None:
    tracker = OffsetTracker(10)
    assert (tracker.low, tracker.next, tracker.span) == (10, 10, 0)
    assert tracker.taken(10)
    assert (tracker.low, tracker.next, tracker.span) == (10, 11, 1)
    tracker.done(10)
    assert (tracker.low, tracker.span) == (11, 0)


def test_one_slow_action_holds_the_commit_and_its_end_frees_all_behind_it() -> None:
    tracker = OffsetTracker(0)
    for offset in range(100_000):
        tracker.taken(offset)
    for offset in range(1, 100_000):
        tracker.done(offset)
    assert (tracker.low, tracker.span) == (0, 100_000)
    tracker.done(0)
    assert (tracker.low, tracker.span) == (100_000, 0)


def test_transaction_markers_between_records_hold_nothing_up() -> None:
    tracker = OffsetTracker(0)
    for offset in (3, 7):
        assert tracker.taken(offset)
    assert tracker.low == 3, "0 to 2 were never records"
    tracker.done(3)
    assert tracker.low == 7
    tracker.done(7)
    assert tracker.low == 8


def test_a_record_that_is_read_again_is_not_taken_again() -> None:
    tracker = OffsetTracker(5)
    assert tracker.taken(6)
    assert not tracker.taken(6)
    assert not tracker.taken(5)
    assert not tracker.taken(0)


def test_done_twice_or_long_ago_changes_nothing() -> None:
    tracker = OffsetTracker(5)
    tracker.taken(5)
    tracker.done(5)
    tracker.done(5)
    tracker.done(1)
    assert (tracker.low, tracker.next) == (6, 6)


def test_a_million_done_with_above_one_that_is_not_cost_a_bit_each() -> None:
    tracker = OffsetTracker(0)
    tracker.taken(0)
    tracker.taken(1_000_000)  # what lies between is done with
    assert tracker.low == 0
    assert len(tracker._bits) < 126_000


def test_what_is_behind_the_commit_is_forgotten() -> None:
    tracker = OffsetTracker(0)
    for offset in range(200_000):
        tracker.taken(offset)
        tracker.done(offset)
    assert tracker.low == 200_000
    assert len(tracker._bits) < 5_000


@given(base=st.integers(0, 30), read=offsets, seed=st.integers(), finished=st.integers(0, 100))
def test_it_is_what_a_set_would_say_in_any_order_and_with_any_gaps(
    base: int, read: set[int], seed: int, finished: int
) -> None:
    dice = random.Random(seed)
    tracker, model = OffsetTracker(base), SetModel(base)
    coming = sorted(read)
    while coming or model.open:
        if coming and (not model.open or dice.random() < 0.5):
            offset = coming.pop(0)
            if dice.random() < 0.1:
                coming.insert(0, offset)  # it is read again
            assert tracker.taken(offset) == model.taken(offset)
        else:
            if not coming and dice.random() * 100 < finished:
                break
            offset = dice.choice(sorted(model.open))
            model.open.discard(offset)
            tracker.done(offset)
        assert (tracker.low, tracker.next, tracker.span) == (model.low, model.next, model.next - model.low)


def test_more_than_a_page_of_bits_in_random_order_ends_at_the_end() -> None:
    dice = random.Random(3)
    order = list(range(1_000, 81_000))
    tracker = OffsetTracker(1_000)
    for offset in order:
        tracker.taken(offset)
    dice.shuffle(order)
    left = set(order)
    for count, offset in enumerate(order):
        tracker.done(offset)
        left.discard(offset)
        if count % 10_000 == 0:
            assert tracker.low == min(left)
    assert tracker.low == 81_000
