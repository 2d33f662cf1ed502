"""One seed is one run: the same faults and the same load, whatever the machine makes of them."""

from itertools import pairwise

import pytest
from chaos_actions import CORPS, PEOPLE_OF_A_SEND, Intents
from chaos_load import Delivery, Load
from chaos_plan import BROKER, BROKER_STEADY_S, EXECUTORS, SEND_EVERY_S, SENDS_FROM_S, STREAMS, WORKERS, draw

from benchmarks.harness.backlog import People
from siyu.events import Action


@pytest.mark.parametrize("seed", range(20))
def test_faults_follow_from_the_seed_and_leave_the_broker_time_to_serve(seed: int) -> None:
    faults = draw(seed, 300)
    assert faults == draw(seed, 300)
    assert faults != draw(seed + 1, 300)
    assert draw(seed, 60) == tuple(fault for fault in faults if fault.at_s < 60)
    assert {fault.target for fault in faults} == {*WORKERS, BROKER}
    for earlier, later in pairwise(fault for fault in faults if fault.target == BROKER):
        assert later.at_s - earlier.at_s - earlier.seconds >= BROKER_STEADY_S - 0.02  # both are rounded


@pytest.mark.parametrize("seed", range(20))
def test_executors_are_struck_soon_after_a_send_and_one_of_them_at_a_time(seed: int) -> None:
    strikes = [fault for fault in draw(seed, 300) if fault.target in EXECUTORS]
    assert {fault.target for fault in strikes} == set(EXECUTORS)
    assert len(strikes) > 20
    assert all((fault.at_s - SENDS_FROM_S) % SEND_EVERY_S <= SEND_EVERY_S / 2 for fault in strikes)


def test_without_executors_the_others_meet_the_same_faults() -> None:
    others = [fault for fault in draw(1, 300) if fault.target not in EXECUTORS]
    assert list(draw(1, 300, workers=STREAMS)) == others


def world(staff: int = 4, friends: int = 1_000) -> People:
    pairs = [(f"staff{n % staff}", f"customer{n:05d}") for n in range(staff * friends)]
    return People(dict.fromkeys(CORPS, pairs), {corp: ["tag1", "tag2"] for corp in CORPS})


def asked(intents: Intents, *moments: float) -> list[Action]:
    return [made for moment in moments for made in intents.due(moment, 1_790_000_000_000)]


def test_the_intents_follow_from_the_seed_at_any_pace() -> None:
    at_once = asked(Intents(1, world()), 20.0)
    by_id = {made.action_id: made for made in asked(Intents(1, world()), *(n / 7 for n in range(141)))}
    assert by_id.keys() == {made.action_id for made in at_once}
    sends = [made for made in at_once if made.action_id.startswith("chaos-send")]
    assert len(sends) == 4
    assert asked(Intents(1, world()), 20.0) == at_once
    assert asked(Intents(2, world()), 20.0) != at_once


def test_no_person_is_in_two_sends_and_no_tag_change_comes_twice() -> None:
    intents = Intents(1, world())
    made = asked(intents, 30.0)
    people = [person for crowd in intents.asked.people.values() for person in crowd]
    assert len(people) == 5 * PEOPLE_OF_A_SEND
    by_corp = {(made.corp_id, made.payload) for made in made}
    assert len(by_corp) == len(made) == len(intents.asked.actions)


def delivered(load: Load, *moments: float) -> list[Delivery]:
    return [delivery for moment in moments for delivery in load.due(moment)] + load.rest()


def test_the_load_follows_from_the_seed_at_any_pace() -> None:
    at_once = delivered(Load(1, rate=200), 10.0)
    assert delivered(Load(1, rate=200), 0.5, 0.51, 7.0, 10.0) == at_once
    assert delivered(Load(2, rate=200), 10.0) != at_once


def test_every_event_is_delivered_late_repeated_and_out_of_order() -> None:
    deliveries = delivered(Load(1, rate=200), 9.999)
    callbacks = [delivery.callback for delivery in deliveries if delivery.callback]
    rows = [row for delivery in deliveries for row in delivery.bills]
    moved = {(row["bill_type"], row.get("out_refund_no") or row["out_trade_no"]) for row in rows}
    assert len(set(callbacks)) + len(moved) == 2_000
    assert len(callbacks) > len(set(callbacks))
    assert len(rows) > len(moved)
    times = [row["pay_time"] for row in rows]
    assert times != sorted(times)
    first_paid = {row["out_trade_no"]: n for n, row in reversed(list(enumerate(rows))) if row["bill_type"] == 0}
    refunds = [(n, row["out_trade_no"]) for n, row in enumerate(rows) if row["bill_type"] == 1]
    assert any(order in first_paid and n < first_paid[order] for n, order in refunds), "a refund before its payment"
    assert any(order not in first_paid for _, order in refunds), "a refund whose payment nobody knows"
