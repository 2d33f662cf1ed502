"""An executor and a platform for sync alone: takes questions from Kafka, answers from a list of bills."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer

from siyu.events import Action, ActionOutcome, codec
from siyu.ops.clock import wall_ms

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


def collection(order_id: str, pay_time: int, fen: int = 100, **fields: Any) -> dict[str, Any]:
    return {
        "bill_type": 0,
        "trade_state": 1,
        "pay_time": pay_time,
        "out_trade_no": order_id,
        "external_userid": f"wm-{order_id}",
        "total_fee": fen,
        "payee_userid": "s1",
        "payment_type": 1,
        **fields,
    }


def refund(order_id: str, refund_id: str, pay_time: int, fen: int) -> dict[str, Any]:
    row = collection(order_id, pay_time, 100) | {"bill_type": 1, "out_refund_no": refund_id, "total_refund_fee": fen}
    del row["trade_state"]
    return row


class Bills:
    """The bill list of one corp. Pages are short and sometimes empty before the end, as the platform's may be."""

    def __init__(self, page: int = 3) -> None:
        self.rows: list[dict[str, Any]] = []
        self.spans: list[tuple[int, int]] = []
        self._page = page

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["end_time"] - asked["begin_time"] <= 28 * 86_400
        if "cursor" not in asked:
            self.spans.append((asked["begin_time"], asked["end_time"]))
        listed = [row for row in self.rows if asked["begin_time"] <= row["pay_time"] < asked["end_time"]]
        start, _, empty = asked.get("cursor", "0").partition("-")
        first = int(start)
        if first and not empty:
            return {"errcode": 0, "bill_list": [], "next_cursor": f"{first}-again"}
        answer: dict[str, Any] = {"errcode": 0, "bill_list": listed[first : first + self._page]}
        if first + self._page < len(listed):
            answer["next_cursor"] = str(first + self._page)
        return answer


class Executor:
    """Ends every action exactly once, however often it is asked for: what the real one promises."""

    def __init__(self, bootstrap: str, group: str, corps: dict[str, Answer]) -> None:
        self._corps = corps
        self.asked: list[Action] = []
        self.interfere: Callable[[Action], ActionOutcome | bool] = lambda action: True
        """Before an answer: another outcome, or False for none at all."""
        self._done: set[str] = set()
        self._stop = threading.Event()
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
        self._consumer.subscribe(["actions.sync"])
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            action = codec().decode_as(Action, message.value())
            if action.corp_id not in self._corps or action.action_id in self._done:
                continue
            self.asked.append(action)
            decided = self.interfere(action)
            if decided is False:
                continue
            self._done.add(action.action_id)
            if decided is True:
                decided = outcome(action, self._corps[action.corp_id](msgspec.json.decode(action.payload)))
            self.send(decided)

    def send(self, value: ActionOutcome) -> None:
        self._producer.produce("action.outcomes", key=value.subject.encode(), value=codec().encode(value))
        self._producer.flush()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()


def outcome(action: Action, response: Any, status: str = "done", errcode: int = 0) -> ActionOutcome:
    return ActionOutcome(
        action_id=action.action_id,
        lane=action.lane,
        corp_id=action.corp_id,
        endpoint=action.endpoint,
        subject=action.subject,
        staff_id="",
        customer_id="",
        status=status,  # type: ignore[arg-type]
        errcode=errcode,
        detail="",
        calls=1,
        reason=action.reason,
        caused_by=action.caused_by,
        created_ms=action.created_ms,
        deadline_ms=action.deadline_ms,
        trigger_received_at_ms=0,
        finished_at_ms=wall_ms(),
        request=action.payload,
        response=response if isinstance(response, bytes) else json.dumps(response).encode(),
    )
