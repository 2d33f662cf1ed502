"""What happens in two corps, without end: the same seed makes the same deliveries in the same order.

Deliveries are what the edge of the system gets, callbacks and pages of bills; they come late, repeated and out of
order. ``Sender`` makes of each what ingest and sync make of it, and knows afterwards what Kafka has accepted.
"""

from __future__ import annotations

import heapq
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chaos_actions import Intents
from confluent_kafka import KafkaError, Message, Producer

from siyu.events import Action, ActionOutcome, codec
from siyu.events.ids import stable_id
from siyu.pay.bills import event_key, parse_page
from siyu.wecom.callbacks import parse_message
from siyu.wecom.endpoints import quota_scope

CALLBACKS, CONTACTS, PAYMENTS, OUTCOMES = "callbacks.raw", "contact.events", "payment.events", "action.outcomes"
BILL_LIST = "externalpay/get_bill_list"

CORPS = ("wwchaos000000001", "wwchaos000000002")
_CUSTOMERS, _HOT_CUSTOMERS, _HOT_CUSTOMER_SHARE = 3_000, 20, 0.1
_STAFF, _HOT_STAFF, _HOT_STAFF_SHARE = 60, 3, 0.3
_MONEY_SHARE = 0.35
_REPEATED_SHARE = 0.1
_ROWS_A_PAGE = 8
_BEGIN_S = 1_772_294_400  # 2026-03-01 00:00 in Shanghai
_BUSINESS_S_A_SECOND = 7_200
_LATE_S = 43_200

# Change type → weight. Whatever the relationship is like at that moment: nobody promises a sensible order.
_CHANGES = {
    "add_external_contact": 46,
    "add_half_external_contact": 8,
    "edit_external_contact": 6,
    "del_follow_user": 18,
    "del_external_contact": 14,
    "del_external_contact DELETE_BY_TRANSFER": 5,
    "transfer_fail": 1,
    "msg_audit_approved": 2,
}


@dataclass(frozen=True)
class Delivery:
    """One callback, or one page of bills."""

    corp_id: str
    callback: bytes = b""
    bills: tuple[dict[str, Any], ...] = ()


class Load:
    """Events at a steady rate, each delivered now, soon or late, and about one in ten once more."""

    def __init__(self, seed: int, rate: float) -> None:
        """``rate``: distinct events a second; repeats come on top."""
        self._chance = random.Random(f"{seed}|load")
        self._every_s = 1 / rate
        self._made = self._delivered = 0
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._staff_of: dict[str, list[str]] = {}
        self._orders: deque[dict[str, Any]] = deque(maxlen=400)
        self._page: dict[str, list[dict[str, Any]]] = {corp_id: [] for corp_id in CORPS}
        self._earlier: dict[str, deque[dict[str, Any]]] = {corp_id: deque(maxlen=200) for corp_id in CORPS}

    def due(self, now_s: float) -> list[Delivery]:
        """What is to be delivered up to this second of the load and was not yet."""
        while (at_s := self._made * self._every_s) <= now_s:
            self._happen(at_s)
            self._made += 1
        return self._until(now_s)

    def rest(self) -> list[Delivery]:
        """What is still held back: after it, the load has told everything that happened."""
        for corp_id in CORPS:
            self._close_page(corp_id, 0.0)
        return self._until(float("inf"))

    def _until(self, now_s: float) -> list[Delivery]:
        ready = []
        while self._waiting and self._waiting[0][0] <= now_s:
            ready.append(heapq.heappop(self._waiting)[2])
        return ready

    def _happen(self, at_s: float) -> None:
        chance = self._chance
        hot = chance.random() < _HOT_CUSTOMER_SHARE
        number = chance.randrange(_HOT_CUSTOMERS) if hot else chance.randrange(_HOT_CUSTOMERS, _CUSTOMERS)
        corp_id, customer_id = CORPS[number % len(CORPS)], f"wmchaos{number:06}"
        time_s = _BEGIN_S + int(at_s * _BUSINESS_S_A_SECOND) + _LATE_S - chance.randrange(_LATE_S)
        if chance.random() < _MONEY_SHARE:
            self._page[corp_id].append(self._bill(customer_id, corp_id, time_s))
            if len(self._page[corp_id]) >= _ROWS_A_PAGE:
                self._close_page(corp_id, at_s)
        else:
            self._deliver(at_s, Delivery(corp_id, callback=self._callback(customer_id, corp_id, time_s)))

    def _deliver(self, at_s: float, delivery: Delivery) -> None:
        chance = self._chance
        for _ in range(2 if chance.random() < _REPEATED_SHARE else 1):
            held_s = chance.choices((0.0, chance.uniform(0, 3), chance.uniform(0, 15)), (65, 28, 7))[0]
            heapq.heappush(self._waiting, (at_s + held_s, self._delivered, delivery))
            self._delivered += 1

    def _callback(self, customer_id: str, corp_id: str, time_s: int) -> bytes:
        change, _, source = self._chance.choices(list(_CHANGES), list(_CHANGES.values()))[0].partition(" ")
        fields = {
            "ToUserName": corp_id,
            "FromUserName": "sys",
            "CreateTime": str(time_s),
            "MsgType": "event",
            "Event": "change_external_contact",
            "ChangeType": change,
            "UserID": self._staff_for(customer_id),
            "ExternalUserID": customer_id,
        }
        if change.startswith("add") and self._chance.random() < 0.5:
            fields["State"] = f"channel{self._chance.randrange(10)}"
        if source:
            fields["Source"] = source
        if change == "transfer_fail":
            fields["FailReason"] = "customer_refused"
        elements = "".join(f"<{name}><![CDATA[{text}]]></{name}>" for name, text in fields.items())
        return f"<xml>{elements}</xml>".encode()

    def _staff_for(self, customer_id: str) -> str:
        """Mostly somebody the customer has met before."""
        chance = self._chance
        met = self._staff_of.setdefault(customer_id, [])
        if met and chance.random() < 0.7:
            return chance.choice(met)
        hot = chance.random() < _HOT_STAFF_SHARE
        staff_id = f"staff{chance.randrange(_HOT_STAFF) if hot else chance.randrange(_HOT_STAFF, _STAFF):03}"
        met.append(staff_id)
        return staff_id

    def _bill(self, customer_id: str, corp_id: str, time_s: int) -> dict[str, Any]:
        chance = self._chance
        if chance.random() < 0.25:
            return self._refund(customer_id, corp_id, time_s)
        fen = chance.randrange(1, 50_000)
        bill = {
            "bill_type": 0,
            "trade_state": 1,
            "out_trade_no": f"order{self._made:08}",
            # Some payers nobody knows, and some sales nobody collected: those go to whose customer it was.
            "external_userid": "" if chance.random() < 0.05 else customer_id,
            "payee_userid": "" if chance.random() < 0.5 else self._staff_for(customer_id),
            "pay_time": time_s,
            "total_fee": fen,
            "payment_type": 1,
        }
        self._orders.append({**bill, "corp_id": corp_id})
        return bill

    def _refund(self, customer_id: str, corp_id: str, time_s: int) -> dict[str, Any]:
        chance = self._chance
        orders = [order for order in self._orders if order["corp_id"] == corp_id]
        # One in twenty is of an order that was paid before all records began.
        known = bool(orders) and chance.random() < 0.95
        order = chance.choice(orders) if known else {"out_trade_no": f"older{self._made:08}", "total_fee": 9_900}
        return {
            "bill_type": 1,
            "out_trade_no": order["out_trade_no"],
            "out_refund_no": f"refund{self._made:08}",
            "external_userid": order.get("external_userid", customer_id),
            "payee_userid": order.get("payee_userid", self._staff_for(customer_id)),
            "pay_time": time_s + 60,
            "total_refund_fee": chance.randint(1, order["total_fee"]),
            "payment_type": 1,
        }

    def _close_page(self, corp_id: str, at_s: float) -> None:
        rows, earlier = self._page[corp_id], self._earlier[corp_id]
        if not rows:
            return
        self._page[corp_id] = []
        again = [self._chance.choice(earlier)] if earlier and self._chance.random() < 0.3 else []
        earlier.extend(rows)
        self._deliver(at_s, Delivery(corp_id, bills=(*rows, *again)))


@dataclass
class Sent:
    """What Kafka was given, each thing once where it says distinct."""

    deliveries: int = 0
    pages: int = 0
    contacts: set[str] = field(default_factory=set)
    payments: set[str] = field(default_factory=set)
    refunds: set[str] = field(default_factory=set)
    typed: int = 0
    """Contact and payment events, repeats included."""

    def arrived(self) -> dict[str, int]:
        """What the audit must find to have arrived, by its own names."""
        return {
            "deliveries": self.deliveries,
            "events": len(self.contacts),
            "pages": self.pages,
            "payments": len(self.payments),
            "refunds": len(self.refunds),
        }


class Sender(threading.Thread):
    """Puts the load into Kafka at its pace. An absent broker is waited for; what is made meanwhile follows at once."""

    def __init__(self, bootstrap: str, load: Load) -> None:
        super().__init__(name="sender")
        self.sent = Sent()
        self.problem: str | None = None
        """Why Kafka does not have everything: with it, nothing this run says is worth anything."""
        self._load = load
        self._intents: Intents | None = None
        self._business_ms: Callable[[], int] = int
        self._asking_since: float | None = None
        self._enough = threading.Event()
        self._given_up = False
        self._encode = codec().encode
        self._pages = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                # However long the broker is away.
                "message.timeout.ms": 0,
                "reconnect.backoff.max.ms": 1_000,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.max.bytes": 8_388_608,
                "log_level": 0,
                "error_cb": self._on_error,
            }
        )

    def ask(self, intents: Intents, business_ms: Callable[[], int], *, warm_up: bool) -> None:
        """From now on intents come with the load; first only those that warm up."""
        self._business_ms, self._intents = business_ms, intents
        if warm_up:
            self._ask(intents.warm_up(business_ms()))
        else:
            self._asking_since = time.monotonic()

    def ask_no_more(self) -> None:
        """The load goes on, intents do not."""
        self._asking_since = None

    def _ask(self, actions: list[Action]) -> None:
        for action in actions:
            self._produce(f"actions.{action.lane}", quota_scope(action.corp_id, action.endpoint), self._encode(action))

    def run(self) -> None:
        began = time.monotonic()
        try:
            while not self._enough.wait(0.02):
                self._send(self._load.due(time.monotonic() - began))
                since = self._asking_since
                if since is not None and self._intents is not None:
                    self._ask(self._intents.due(time.monotonic() - since, self._business_ms()))
                self._producer.poll(0)
            if not self._given_up:
                self._send(self._load.rest())
        except Exception as error:
            self.problem = f"the load broke: {type(error).__name__}: {error}"

    def finish(self, timeout_s: float) -> None:
        """Sends what is still held back; returns when Kafka has accepted it all, or ``problem`` says otherwise."""
        self._enough.set()
        self.join(timeout_s)
        left = self._producer.flush(timeout_s)
        if self.is_alive() or left:
            self.problem = self.problem or f"Kafka has not accepted everything within {timeout_s:.0f} s"

    def give_up(self) -> None:
        """Sends nothing more."""
        self._given_up = True
        self._enough.set()
        if self.is_alive():
            self.join()
        self._producer.purge()

    def _send(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.callback:
                self._send_callback(delivery)
            else:
                self._send_page(delivery)

    def _send_callback(self, delivery: Delivery) -> None:
        now_ms = time.time_ns() // 1_000_000
        callback = parse_message(
            delivery.corp_id, delivery.callback, agent_id="1", received_at_ms=now_ms, envelope_time_ms=now_ms
        )
        assert callback.contact is not None
        self._produce(CALLBACKS, callback.key, self._encode(callback.raw))
        self._produce(CONTACTS, callback.key, self._encode(callback.contact))
        self.sent.deliveries += 1
        self.sent.typed += 1
        self.sent.contacts.add(callback.contact.event_id)

    def _send_page(self, delivery: Delivery) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._pages += 1
        answer = json.dumps({"errcode": 0, "bill_list": delivery.bills}).encode()
        outcome = ActionOutcome(
            action_id=stable_id("chaos.page", self._pages),
            lane="sync",
            corp_id=delivery.corp_id,
            endpoint=BILL_LIST,
            subject=delivery.corp_id,
            staff_id="",
            customer_id="",
            status="done",
            errcode=0,
            detail="",
            calls=1,
            reason="",
            caused_by="",
            created_ms=now_ms,
            deadline_ms=0,
            trigger_received_at_ms=0,
            finished_at_ms=now_ms,
            request=b"",
            response=answer,
        )
        self._produce(OUTCOMES, outcome.subject, self._encode(outcome))
        self.sent.pages += 1
        page = parse_page(answer, corp_id=delivery.corp_id, received_at_ms=now_ms)
        assert not page.problems
        for event in page.events:
            self._produce(PAYMENTS, event_key(event), self._encode(event))
            self.sent.typed += 1
            (self.sent.refunds if event.change == "refunded" else self.sent.payments).add(event.event_id)

    def _produce(self, topic: str, key: str, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._on_delivery)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.problem = f"Kafka refused a record of the load: {error.name()}"

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.problem = f"the load's producer cannot go on: {error.name()}"
