"""What it costs to encode and decode each event: Siyu's codec beside fastavro, in CPU time.

`fastavro` is what the codec was before: `schemaless_writer` of `asdict(event)`, `event_type(**schemaless_reader(…))`,
with the same header and the same refusal of trailing bytes. Both take the same events and must give the same bytes and
the same events back. They alternate round by round; the median of the rounds' times and of their ratios is printed, as
JSON, in microseconds an event.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import fastavro
import msgspec

from siyu.events import (
    Action,
    ActionOutcome,
    ContactEvent,
    Event,
    OrderFact,
    PaymentEvent,
    RawCallback,
    RelationshipFact,
    StaffDaySnapshot,
    StaffDelta,
    codec,
    schemas_dir,
)
from siyu.events.codec import schema_name
from siyu.events.ids import stable_id

START_MS = 1_767_196_800_000
YEAR_MS = 365 * 86_400_000


class FastavroCodec:
    """The codec before docs/decisions/0010, for the newest version of each type."""

    def __init__(self) -> None:
        ids: dict[str, int] = json.loads((schemas_dir() / "ids.json").read_text())
        self._schemas: dict[type[Event], tuple[bytes, Any]] = {}
        self._types: dict[int, tuple[type[Event], Any]] = {}
        for event_type in MAKERS:
            versions = [key for key in ids if key.rpartition(".v")[0] == schema_name(event_type)]
            name = max(versions, key=lambda key: int(key.rpartition(".v")[2]))
            schema = fastavro.parse_schema(json.loads((schemas_dir() / "avro" / f"{name}.avsc").read_text()))
            self._schemas[event_type] = (b"\x00" + ids[name].to_bytes(4, "big"), schema)
            self._types[ids[name]] = (event_type, schema)

    def encode(self, event: Event) -> bytes:
        header, schema = self._schemas[type(event)]
        out = io.BytesIO(header)
        out.seek(5)
        fastavro.schemaless_writer(out, schema, msgspec.structs.asdict(event))
        return out.getvalue()

    def decode(self, value: bytes) -> Event:
        event_type, schema = self._types[int.from_bytes(value[1:5], "big")]
        data = io.BytesIO(value)
        data.seek(5)
        fields: Any = fastavro.schemaless_reader(data, schema, None)
        if data.tell() != len(value):
            raise ValueError("trailing bytes")
        return event_type(**fields)


class Values:
    """Values as they look in production, by what they mean; one seed gives the same ones again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.corp_id = "ww5f0c3bd1a2e49d77"

    def event_id(self) -> str:
        return stable_id(self.random.random())

    def staff_id(self) -> str:
        return f"staff{self.random.randrange(20_000):05}"

    def customer_id(self) -> str:
        return f"wmAJ2GCAAAXtWyujaWJHDDGi{self.random.randrange(8_000_000):08}"

    def order_id(self) -> str:
        return f"4200{self.random.randrange(10**18):018}20260101"

    def time_ms(self) -> int:
        return START_MS + self.random.randrange(YEAR_MS)

    def amount_fen(self) -> int:
        return self.random.randrange(500, 90_000)

    def day(self) -> str:
        return f"2026-{self.random.randrange(1, 13):02}-{self.random.randrange(1, 29):02}"

    def often(self, share: float, value: Any, otherwise: Any) -> Any:
        return value if self.random.random() < share else otherwise


def raw_callback(v: Values) -> RawCallback:
    return RawCallback(
        event_id=v.event_id(),
        corp_id=v.corp_id,
        agent_id="",
        event="change_external_contact",
        change_type="add_external_contact",
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        known=True,
        personal=b"<xml>" + b"<UserID><![CDATA[somebody]]></UserID>" * 16 + b"</xml>",
    )


def contact_event(v: Values) -> ContactEvent:
    change = v.random.choice(["add", "add", "edit", "delete_by_customer"])
    return ContactEvent(
        event_id=v.event_id(),
        corp_id=v.corp_id,
        change=change,
        staff_id=v.staff_id(),
        customer_id=v.customer_id(),
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        state="store-0420-door" if change == "add" else "",
        welcome_code=v.event_id() if change == "add" else "",
        fail_reason="",
    )


def payment_event(v: Values) -> PaymentEvent:
    return PaymentEvent(
        event_id=v.event_id(),
        corp_id=v.corp_id,
        change="paid",
        customer_id=v.customer_id(),
        order_id=v.order_id(),
        refund_id="",
        staff_id=v.staff_id(),
        amount_fen=v.amount_fen(),
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        source="externalpay",
        payment_type=1,
        personal=v.often(0.2, '{"remark":"门店自提，周六下午","commodity_list":[]}'.encode(), b""),
    )


def relationship_fact(v: Values) -> RelationshipFact:
    episodes = v.often(0.2, 2, 1)
    return RelationshipFact(
        corp_id=v.corp_id,
        staff_id=v.staff_id(),
        customer_id=v.customer_id(),
        revision=v.random.randrange(1, 6),
        status="friend",
        staff_side=True,
        customer_side=True,
        channel="store-0420-door",
        first_added_ms=v.time_ms(),
        episodes_started_ms=[v.time_ms() for _ in range(episodes)],
        episodes_ended_ms=[v.time_ms() for _ in range(episodes - 1)] + [0],
        episodes_ended_by=["customer"] * (episodes - 1) + [""],
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        caused_by=v.event_id(),
    )


def order_fact(v: Values) -> OrderFact:
    refunds = v.often(0.125, 1, 0)
    return OrderFact(
        corp_id=v.corp_id,
        order_id=v.order_id(),
        customer_id=v.customer_id(),
        revision=1 + refunds,
        staff_id=v.staff_id(),
        credit_rule="collector",
        paid=True,
        pay_time_ms=v.time_ms(),
        gross_fen=v.amount_fen(),
        refunded_fen=300 * refunds,
        refund_ids=["50" + v.order_id()] * refunds,
        refund_times_ms=[v.time_ms()] * refunds,
        refund_amounts_fen=[300] * refunds,
        payment_type=1,
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        caused_by=v.event_id(),
    )


def staff_delta(v: Values) -> StaffDelta:
    return StaffDelta(
        corp_id=v.corp_id,
        staff_id=v.staff_id(),
        day=v.day(),
        counters=v.often(0.5, {"orders": 1, "gross_fen": v.amount_fen()}, {"adds": 1}),
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        caused_by=v.event_id(),
    )


def staff_day_snapshot(v: Values) -> StaffDaySnapshot:
    return StaffDaySnapshot(
        corp_id=v.corp_id,
        staff_id=v.staff_id(),
        day=v.day(),
        revision=v.random.randrange(1, 200),
        adds=v.random.randrange(30),
        half_adds=0,
        lost_by_customer=v.random.randrange(5),
        lost_by_staff=0,
        lost_by_transfer=0,
        orders=v.random.randrange(80),
        gross_fen=v.random.randrange(2_000_000),
        refunds=v.random.randrange(5),
        refunded_fen=v.random.randrange(50_000),
        unknown_customer_orders=v.random.randrange(20),
        unknown_customer_gross_fen=v.random.randrange(500_000),
        unmatched_refunds=0,
        unmatched_refund_fen=0,
        event_time_ms=v.time_ms(),
        received_at_ms=v.time_ms(),
        caused_by=v.event_id(),
    )


def action(v: Values) -> Action:
    staff_id = v.staff_id()
    return Action(
        action_id=v.event_id(),
        lane="welcome",
        corp_id=v.corp_id,
        endpoint="externalcontact/send_welcome_msg",
        subject=f"{v.corp_id}|{staff_id}",
        staff_id=staff_id,
        customer_id=v.customer_id(),
        payload='{"welcome_code":"CODE","text":{"content":"您好，欢迎来到我们的门店，有什么可以帮您？"}}'.encode(),
        reason="welcome.default@2026-01-01",
        caused_by=v.event_id(),
        created_ms=v.time_ms(),
        not_before_ms=0,
        deadline_ms=v.time_ms(),
        trigger_received_at_ms=v.time_ms(),
    )


def action_outcome(v: Values) -> ActionOutcome:
    done = action(v)
    return ActionOutcome(
        action_id=done.action_id,
        lane=done.lane,
        corp_id=done.corp_id,
        endpoint=done.endpoint,
        subject=done.subject,
        staff_id=done.staff_id,
        customer_id=done.customer_id,
        status="done",
        errcode=0,
        detail="",
        calls=1,
        reason=done.reason,
        caused_by=done.caused_by,
        created_ms=done.created_ms,
        deadline_ms=done.deadline_ms,
        trigger_received_at_ms=done.trigger_received_at_ms,
        finished_at_ms=v.time_ms(),
        request=done.payload,
        response=b"",
    )


MAKERS: dict[type[Event], Callable[[Values], Event]] = {
    ContactEvent: contact_event,
    PaymentEvent: payment_event,
    RelationshipFact: relationship_fact,
    OrderFact: order_fact,
    StaffDelta: staff_delta,
    StaffDaySnapshot: staff_day_snapshot,
    RawCallback: raw_callback,
    Action: action,
    ActionOutcome: action_outcome,
}


def microseconds(function: Callable[[Any], Any], values: list[Any]) -> float:
    began = time.process_time()
    for value in values:
        function(value)
    return (time.process_time() - began) / len(values) * 1e6


def side_by_side(
    before: Callable[[Any], Any], after: Callable[[Any], Any], values: list[Any], rounds: int
) -> dict[str, float]:
    pairs = [(microseconds(before, values), microseconds(after, values)) for _ in range(rounds)]
    return {
        "fastavro_us": round(statistics.median(old for old, _ in pairs), 2),
        "siyu_us": round(statistics.median(new for _, new in pairs), 2),
        "times_as_fast": round(statistics.median(old / new for old, new in pairs), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000, help="events of each type (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="alternating rounds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the events (default: %(default)s)")
    options = parser.parse_args()

    fast, siyu = FastavroCodec(), codec()
    table = {}
    for event_type, make in MAKERS.items():
        values = Values(options.seed)
        events = [make(values) for _ in range(options.events)]
        encoded = [siyu.encode(event) for event in events]
        if encoded != [fast.encode(event) for event in events]:
            raise SystemExit(f"{event_type.__name__}: other bytes than fastavro's")
        if events != [siyu.decode(value) for value in encoded] or events != [fast.decode(value) for value in encoded]:
            raise SystemExit(f"{event_type.__name__}: did not come back")
        table[event_type.__name__] = {
            "mean_bytes": round(statistics.fmean(map(len, encoded))),
            "decode": side_by_side(fast.decode, siyu.decode, encoded, options.rounds),
            "encode": side_by_side(fast.encode, siyu.encode, events, options.rounds),
        }
    print(json.dumps({"python": platform.python_version(), "fastavro": fastavro.__version__, "types": table}, indent=2))


if __name__ == "__main__":
    main()
