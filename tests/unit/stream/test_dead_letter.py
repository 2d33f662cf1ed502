"""Single bad records pass, a flood of them halts; a dead letter tells class and place, never content."""

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from siyu.stream import StreamSettings
from siyu.stream.deadletter import DeadLetterLimit, headers


def limit(tmp_path_factory: object = None, **changes: object) -> DeadLetterLimit:
    fields = {"dead_letter_run": 3, "dead_letter_share": 0.2, "dead_letter_window": 20, **changes}
    return DeadLetterLimit(StreamSettings(bootstrap="", state_dir=None, **fields))  # type: ignore[arg-type]


def test_a_run_longer_than_the_limit_halts() -> None:
    one = limit(dead_letter_share=1)
    assert [one.exceeded(n) for n in (5, 6, 7)] == [None, None, None]
    assert one.exceeded(8) == "more than 3 dead letters in a row"


def test_a_good_record_ends_the_run() -> None:
    one = limit(dead_letter_share=1)
    assert not any(one.exceeded(n) for n in (1, 2, 3, 5, 6, 7, 9))


def test_a_share_of_the_window_halts_without_any_run() -> None:
    one = limit()
    assert [one.exceeded(n) for n in (0, 3, 6, 9)] == [None] * 4
    assert one.exceeded(12) == "more than 4 dead letters within 20 records"


def test_what_left_the_window_is_forgotten() -> None:
    one = limit()
    assert not any(one.exceeded(n) for n in range(0, 1_000, 5))


@given(st.sets(st.integers(0, 60)))
def test_halts_exactly_when_run_or_share_is_exceeded(dead: set[int]) -> None:
    one = limit()
    for n in sorted(dead):
        run = next(length for length in range(1, 100) if n - length not in dead)
        share = sum(1 for other in dead if n - 20 < other <= n)
        halted = one.exceeded(n) is not None
        assert halted == (run > 3 or share > 4)
        if halted:
            return


def test_headers_tell_origin_class_and_place_but_not_the_message() -> None:
    message = Message(
        topic="in", partition=2, offset=7, key=b"k", value=b"v", headers=[("attempt", b"4")], timestamp=(1, 99)
    )
    try:
        raise ValueError("phone 13800000000")
    except ValueError as error:
        told = {name: value.decode() for name, value in headers(message, "step", error, "journey")}
    place = told.pop("error.place")
    assert place.startswith("test_dead_letter.py:")
    assert told == {
        "origin.topic": "in",
        "origin.partition": "2",
        "origin.offset": "7",
        "origin.timestamp_ms": "99",
        "error.stage": "step",
        "error.class": "ValueError",
        "processor": "journey",
        "attempt": "5",
    }


@pytest.mark.parametrize("attempt", [None, b"", b"x", "1"])
def test_unreadable_attempt_counts_as_none(attempt: object) -> None:
    message = Message(topic="in", partition=0, offset=0, headers=[("attempt", attempt)], timestamp=(1, 1))  # type: ignore[list-item]
    assert dict(headers(message, "step", ValueError(), "p"))["attempt"] == b"1"
