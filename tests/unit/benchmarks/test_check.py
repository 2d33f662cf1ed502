"""The benchmark of the join accepts every right answer, whatever the order between topics, and no wrong one."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from benchmarks.harness.check import Checker, WrongOutput, checker
from benchmarks.harness.events import CONTACT_TOPIC, PAYMENT_TOPIC, Data, Event
from benchmarks.harness.steps import CREDITED, ORDER_FACTS, STAFF_DELTAS, STEPS, LastStaff, decode_credited
from siyu.events import codec

DATA = Data(count=1_000, customers=25)
Outputs = dict[str, list[tuple[bytes, bytes]]]
Order = Callable[[list[tuple[str, str, Event]]], list[tuple[str, str, Event]]]


def as_it_happened(events: list[tuple[str, str, Event]]) -> list[tuple[str, str, Event]]:
    return events


def contacts_first(events: list[tuple[str, str, Event]]) -> list[tuple[str, str, Event]]:
    return sorted(events, key=lambda event: event[0] != CONTACT_TOPIC)


def payments_in_the_middle(events: list[tuple[str, str, Event]]) -> list[tuple[str, str, Event]]:
    contacts, payments = ([e for e in events if e[0] == topic] for topic in (CONTACT_TOPIC, PAYMENT_TOPIC))
    return contacts[: len(contacts) // 2] + payments + contacts[len(contacts) // 2 :]


@pytest.fixture(scope="module", params=list(STEPS))
def step(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def answers(step: str) -> Checker:
    return checker(step, DATA)


def play(step: str, order: Order) -> tuple[Outputs, dict[str, Any]]:
    """What an engine without a fault writes when it sees the events in this order."""
    outputs: Outputs = {name: [] for name in STEPS[step].outputs}
    states: dict[str, Any] = {}
    apply = STEPS[step].build({name: name for name in outputs})
    for _, key, event in order(list(DATA.events())):
        states[key], emitted = apply(key, states.get(key), event)
        for topic, out_key, value in emitted:
            outputs[topic].append((out_key.encode(), STEPS[step].encode(value)))
    return outputs, {key: state for key, state in states.items() if state is not None}


def check(answers: Checker, outputs: Outputs, states: dict[str, Any]) -> int:
    return answers.check(lambda name: iter(outputs[name]), states).outputs


@pytest.mark.parametrize("order", [as_it_happened, contacts_first, payments_in_the_middle])
def test_any_order_between_the_topics_is_right(step: str, answers: Checker, order: Order) -> None:
    outputs, states = play(step, order)

    assert check(answers, outputs, states) == sum(map(len, outputs.values()))


@pytest.mark.parametrize("tamper", ["lost", "twice"])
def test_every_output_counts(step: str, answers: Checker, tamper: str) -> None:
    outputs, states = play(step, as_it_happened)
    for records in outputs.values():
        kept = list(records)
        records[100:101] = [] if tamper == "lost" else [records[100]] * 2
        with pytest.raises(WrongOutput):
            check(answers, outputs, states)
        records[:] = kept


def test_a_state_that_was_lost_is_noticed(step: str, answers: Checker) -> None:
    outputs, states = play(step, as_it_happened)
    states.pop(next(iter(states)))

    with pytest.raises(WrongOutput, match="1 last states"):
        check(answers, outputs, states)


def test_a_state_from_before_the_last_contact_event_is_noticed() -> None:
    outputs, states = play("minimal", as_it_happened)
    states[next(iter(states))] = LastStaff("staff99999")

    with pytest.raises(WrongOutput, match="1 last states"):
        check(checker("minimal", DATA), outputs, states)


@pytest.mark.parametrize("tamper", ["never seen", "gone back"])
def test_staff_that_no_order_explains_is_noticed(tamper: str) -> None:
    """A state that was lost on the way shows in what payments get: nobody, or somebody from long ago."""
    outputs, states = play("minimal", contacts_first)
    key = outputs[CREDITED][0][0]
    mine = [number for number, (other, _) in enumerate(outputs[CREDITED]) if other == key]
    number = mine[-1]
    credited = decode_credited(outputs[CREDITED][number][1])
    wrong = msgspec.structs.replace(credited, staff_id="staff99999" if tamper == "never seen" else "")
    outputs[CREDITED][number] = key, STEPS["minimal"].encode(wrong)

    with pytest.raises(WrongOutput, match="1 customers whose credited staff no interleaving explains"):
        check(checker("minimal", DATA), outputs, states)


def test_payments_out_of_order_are_noticed() -> None:
    outputs, states = play("minimal", as_it_happened)
    records = outputs[CREDITED]
    first = records[0][0]
    second = next(number for number, (key, _) in enumerate(records) if number and key == first)
    records[0], records[second] = records[second], records[0]

    with pytest.raises(WrongOutput, match="exactly once and in order"):
        check(checker("minimal", DATA), outputs, states)


@pytest.mark.parametrize("topic", [ORDER_FACTS, STAFF_DELTAS])
def test_a_wrong_amount_is_noticed(topic: str) -> None:
    outputs, states = play("journey", as_it_happened)
    key, value = outputs[topic][-1]
    event: Any = codec().decode(value)
    if topic == STAFF_DELTAS:
        wrong = msgspec.structs.replace(event, counters={name: n + 1 for name, n in event.counters.items()})
    else:
        wrong = msgspec.structs.replace(event, gross_fen=event.gross_fen + 1)
    outputs[topic][-1] = key, codec().encode(wrong)

    with pytest.raises(WrongOutput):
        check(checker("journey", DATA), outputs, states)


def test_outputs_that_show_nothing_are_refused() -> None:
    """Were all payments read before all contact events, any answer to them would be as good."""
    payments_first = lambda events: sorted(events, key=lambda event: event[0] != PAYMENT_TOPIC)  # noqa: E731
    outputs, states = play("minimal", payments_first)

    with pytest.raises(WrongOutput, match="take more events"):
        check(checker("minimal", DATA), outputs, states)


def test_the_same_seed_gives_the_same_events() -> None:
    assert list(Data(500, 20, seed=7).events()) == list(Data(500, 20, seed=7).events())
    assert list(Data(500, 20, seed=7).events()) != list(Data(500, 20, seed=8).events())
