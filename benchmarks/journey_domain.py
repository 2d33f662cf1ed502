"""What journey's step costs beside a step that keeps only the last event, and how large a customer's state is.

Both run over the same events (``harness/events.py``) in one process, in alternating rounds, without Kafka, Avro or
RocksDB. Rates are per CPU second. "with state bytes" adds the encoding of the state that the runtime does after every
step. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import dropwhile, islice
from typing import Any

import msgspec

from benchmarks.harness.events import EVENTS_PER_CUSTOMER, START_MS, Data, Event
from services.journey.domain import Customer, apply
from services.performance import domain as performance
from siyu.events import StaffDelta

DAY_MS = 86_400_000
encode = msgspec.msgpack.Encoder().encode


class LastEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State of the step to compare with."""

    events: int
    event_time_ms: int
    event_id: str


def keep_last(state: LastEvent | None, event: Event) -> tuple[LastEvent, list[Any]]:
    """The least a keyed step can do: look at the state, make a new one, send one record."""
    new = LastEvent(1 if state is None else state.events + 1, event.event_time_ms, event.event_id)
    return new, [
        StaffDelta(
            corp_id=event.corp_id,
            staff_id=event.staff_id,
            day="2026-01-01",
            counters={"orders": 1},
            event_time_ms=event.event_time_ms,
            received_at_ms=event.received_at_ms,
            caused_by=event.event_id,
        )
    ]


def events_of(data: Data) -> Iterator[Event]:
    """Ascending by event time."""
    return (event for _, _, event in data.events())


def rate(step: Callable[..., tuple[Any, list[Any]]], events: list[Event], with_state_bytes: bool) -> float:
    states: dict[str, Any] = {}
    began = time.process_time()
    for event in events:
        key = event.customer_id
        states[key], _ = step(states.get(key), event)
        if with_state_bytes:
            encode(states[key])
    return len(events) / (time.process_time() - began)


def sizes(states: list[Customer]) -> dict[str, float]:
    lengths = sorted(len(encode(state)) for state in states)
    return {
        "mean": round(statistics.fmean(lengths), 1),
        "p50": lengths[len(lengths) // 2],
        "p99": lengths[len(lengths) * 99 // 100],
        "max": lengths[-1],
    }


def heavy(orders: int) -> dict[str, float]:
    """One customer with very many orders: what the whole life costs, and how large the state is at its end."""
    # Three events in five are payments: of three times as many there are always enough.
    life = dropwhile(lambda event: event.change != "add", events_of(Data(3 * orders, customers=1)))
    events = [next(life), *islice((event for event in life if event.change == "paid"), orders - 1)]
    state: Customer | None = None
    began = time.process_time()
    for event in events:
        state, _ = apply(state, event)
        encode(state)
    return {
        "events": len(events),
        "microseconds_per_event": round((time.process_time() - began) / len(events) * 1e6, 1),
        "state_bytes": len(encode(state)),
    }


def staff_member(days: int) -> dict[str, float]:
    """A staff member with a history of that many days gets one more sale: cost of the step and size of its state."""
    state: performance.StaffMember | None = None
    counters = {"adds": 3, "lost_by_customer": 1, "orders": 5, "gross_fen": 123_456}
    for n in range(days):
        day = time.strftime("%Y-%m-%d", time.gmtime((START_MS + n * DAY_MS) // 1000))
        delta = StaffDelta(
            corp_id="ww1",
            staff_id="s",
            day=day,
            counters=counters,
            event_time_ms=START_MS + n * DAY_MS,
            received_at_ms=START_MS,
            caused_by="e",
        )
        state, _ = performance.apply(state, delta)
    rounds = 2_000
    began = time.process_time()
    for _ in range(rounds):
        state, _ = performance.apply(state, delta)
        encode(state)
    return {
        "microseconds_per_delta": round((time.process_time() - began) / rounds * 1e6, 1),
        "state_bytes": len(encode(state)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=20_000, help="customers in the mix (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds, best counts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the events (default: %(default)s)")
    options = parser.parse_args()

    rng = random.Random(options.seed)
    in_time = list(events_of(Data(round(EVENTS_PER_CUSTOMER * options.customers), options.customers, options.seed)))
    shuffled = rng.sample(in_time, len(in_time)) + rng.sample(in_time, len(in_time) // 10)

    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, step, sequence, with_bytes in (
            ("last_event", keep_last, in_time, False),
            ("journey", apply, in_time, False),
            ("journey_shuffled_10_percent_repeats", apply, shuffled, False),
            ("last_event_with_state_bytes", keep_last, in_time, True),
            ("journey_with_state_bytes", apply, in_time, True),
        ):
            rates.setdefault(name, []).append(rate(step, sequence, with_bytes))
    best = {name: round(max(values)) for name, values in rates.items()}

    states: dict[str, Customer] = {}
    for event in in_time:
        states[event.customer_id], _ = apply(states.get(event.customer_id), event)
    result = {
        "python": platform.python_version(),
        "events": len(in_time),
        "events_per_cpu_second": best,
        "ratio_to_last_event": round(best["journey"] / best["last_event"], 3),
        "ratio_to_last_event_with_state_bytes": round(
            best["journey_with_state_bytes"] / best["last_event_with_state_bytes"], 3
        ),
        "state_bytes_per_customer": sizes(list(states.values())),
        "one_customer_with_many_orders": [heavy(n) for n in (100, 1_000, 4_000)],
        "one_staff_member_by_days": {days: staff_member(days) for days in (30, 365, 1_095)},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
