"""One seed is one run: the same faults and the same load, whatever the machine makes of them."""

from itertools import pairwise

import pytest
from chaos_load import Delivery, Load
from chaos_plan import BROKER, BROKER_STEADY_S, WORKERS, draw


@pytest.mark.parametrize("seed", range(20))
def test_faults_follow_from_the_seed_and_leave_the_broker_time_to_serve(seed: int) -> None:
    faults = draw(seed, 300)
    assert faults == draw(seed, 300)
    assert faults != draw(seed + 1, 300)
    assert draw(seed, 60) == tuple(fault for fault in faults if fault.at_s < 60)
    assert {fault.target for fault in faults} == {*WORKERS, BROKER}
    for earlier, later in pairwise(fault for fault in faults if fault.target == BROKER):
        assert later.at_s - earlier.at_s - earlier.seconds >= BROKER_STEADY_S - 0.02  # both are rounded


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
