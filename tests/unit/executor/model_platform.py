"""A small honest platform, and a shard that dies wherever a test wants it to.

The platform makes messages, moments, ways and transfers out of calls, loses answers, carries calls out late, shows them
late, pages in twos and threes, and repeats nothing by itself. The shard does what the real one does in the order in
which it matters: records and outcomes of a step are committed together, a durable call leaves after its commit, and
whatever is not committed when the process dies is gone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from services.executor.domain import DETAILS, End
from services.executor.timings import Timings, load_timings
from services.executor.work import Ask, Effects, Surroundings, Work, begin, is_open, outcome_of, restore
from siyu.events import Action, ActionOutcome, LedgerEntry, codec, schemas_dir
from siyu.wecom.client import Answer, NotSent, Result, Unknown
from siyu.wecom.errors import load_error_tables

CORP = "ww1"
NOW = 1_780_000_000_000
TABLE = load_error_tables(schemas_dir() / "rules" / "wecom-errors.yaml").at(NOW)
TIMINGS = load_timings(schemas_dir() / "rules" / "executor.yaml").at(NOW)
READY_S = 60
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def an_action(**changes: Any) -> Action:
    """A send of a text by s1, unless said otherwise."""
    fields: dict[str, Any] = {
        "action_id": "a1",
        "lane": "bulk",
        "corp_id": CORP,
        "endpoint": "externalcontact/add_msg_template",
        "subject": f"{CORP}|s1",
        "staff_id": "s1",
        "customer_id": "",
        "payload": b"{}",
        "reason": "r@1",
        "caused_by": "e1",
        "created_ms": NOW,
        "not_before_ms": 0,
        "deadline_ms": 0,
        "trigger_received_at_ms": 0,
    }
    return Action(**(fields | changes))


def a_send(people: Iterable[str], *, action: dict[str, Any] | None = None, **payload: Any) -> Action:
    """A send to these people by s1."""
    body = {"chat_type": "single", "external_userid": list(people), "sender": "s1", "text": {"content": "hello"}}
    return an_action(payload=json.dumps(body | payload).encode(), **(action or {}))


@dataclass
class Message:
    """One mass message. ``rows``: per staff member, the status of each person."""

    msgid: str
    made_ms: int
    shown_ms: int
    chat_type: str
    text: str
    rows: dict[str, dict[str, int]]
    attachments: list[dict[str, Any]] = field(default_factory=list)
    sent: set[str] = field(default_factory=set)
    cancelled: bool = False
    reminded: int = 0
    creator: str = ""


class Refused(Exception):
    def __init__(self, errcode: int, **body: Any) -> None:
        self.errcode, self.body = errcode, body


@dataclass
class Platform:
    """What WeCom would do. ``decide`` gives a person's status once their staff member has confirmed."""

    now_ms: int = NOW
    page: int = 3
    shown_after_ms: int = 0
    strangers: frozenset[str] = frozenset()
    owner: Callable[[str], str] = lambda person: "s1"
    decide: Callable[[str], int] = lambda person: 1
    messages: list[Message] = field(default_factory=list)
    ways: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, dict[str, Any]] = field(default_factory=dict)
    moments: dict[str, dict[str, Any]] = field(default_factory=dict)
    transfers: dict[tuple[str, str, str], int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    apps: list[dict[str, Any]] = field(default_factory=list)
    welcomed: set[str] = field(default_factory=set)
    marked: list[dict[str, Any]] = field(default_factory=list)

    def carry_out(self, endpoint: str, payload: bytes) -> tuple[int, bytes]:
        """One call as it arrives."""
        self.calls[endpoint] += 1
        try:
            answer = getattr(self, "_" + endpoint.rpartition("externalcontact/")[2].replace("/", "_"))(
                json.loads(payload)
            )
            return 0, json.dumps({"errcode": 0, "errmsg": "ok"} | (answer or {})).encode()
        except Refused as refusal:
            return refusal.errcode, json.dumps({"errcode": refusal.errcode} | refusal.body).encode()

    def confirm(self, msgid: str, staff: str) -> None:
        message = self._of({"msgid": msgid})
        if message.cancelled or staff in message.sent:
            return
        message.sent.add(staff)
        for person in message.rows[staff]:
            message.rows[staff][person] = self.decide(person)

    def _add_msg_template(self, body: dict[str, Any]) -> dict[str, Any]:
        assert "siyu" not in body, "our own options never leave"
        named = body.get("external_userid") or body["chat_id_list"]
        failed = [person for person in named if person in self.strangers]
        rows: dict[str, dict[str, int]] = {}
        for person in named:
            if person not in self.strangers:
                rows.setdefault(body.get("sender") or self.owner(person), {})[person] = 0
        if not rows:
            raise Refused(41048, fail_list=failed)
        msgid = f"msg{len(self.messages)}"
        shown_ms = self.now_ms + self.shown_after_ms
        made = Message(msgid, self.now_ms, shown_ms, body.get("chat_type", "single"), body["text"]["content"], rows)
        made.attachments = body.get("attachments", [])
        self.messages.append(made)
        return {"msgid": msgid, "fail_list": failed}

    def _get_groupmsg_list_v2(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [
            {"msgid": m.msgid, "create_time": m.made_ms // 1000, "text": {"content": m.text}}
            | {"attachments": m.attachments}
            | ({"creator": m.creator} if m.creator else {})
            for m in self.messages
            if body["start_time"] <= m.made_ms // 1000 <= body["end_time"]
            and m.shown_ms <= self.now_ms
            and m.chat_type == body["chat_type"]
        ]
        return self._paged("group_msg_list", found, body)

    def _get_groupmsg_task(self, body: dict[str, Any]) -> dict[str, Any]:
        message = self._of(body)
        if self.now_ms < message.made_ms + READY_S * 1000:
            raise Refused(41063)
        tasks = [{"userid": staff, "status": 2 if staff in message.sent else 0} for staff in message.rows]
        return self._paged("task_list", tasks, body)

    def _get_groupmsg_send_result(self, body: dict[str, Any]) -> dict[str, Any]:
        message = self._of(body)
        group = message.chat_type == "group"
        rows = [
            {"chat_id" if group else "external_userid": person, "userid": body["userid"], "status": status}
            for person, status in message.rows[body["userid"]].items()
            if not group or status == 1
        ]
        return self._paged("send_list", rows, body)

    def _remind_groupmsg_send(self, body: dict[str, Any]) -> None:
        message = self._of(body)
        if message.reminded >= 3:
            raise Refused(41094)
        message.reminded += 1

    def _cancel_groupmsg_send(self, body: dict[str, Any]) -> None:
        message = self._of(body)
        if message.cancelled:
            raise Refused(41093)
        message.cancelled = True

    def _of(self, body: dict[str, Any]) -> Message:
        return next(m for m in self.messages if m.msgid == body["msgid"])

    def _paged(self, name: str, rows: list[Any], body: dict[str, Any]) -> dict[str, Any]:
        at = int(body.get("cursor") or 0)
        more = str(at + self.page) if at + self.page < len(rows) else ""
        return {name: rows[at : at + self.page], "next_cursor": more}

    def _send_welcome_msg(self, body: dict[str, Any]) -> None:
        if body["welcome_code"] in self.welcomed:
            raise Refused(41051)
        self.welcomed.add(body["welcome_code"])

    def _mark_tag(self, body: dict[str, Any]) -> None:
        self.marked.append(body)

    def _get(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"external_contact": {"external_userid": body["external_userid"]}}

    def _message_send(self, body: dict[str, Any]) -> dict[str, Any]:
        self.apps.append(body)
        return {"msgid": f"app{len(self.apps)}"}

    def _add_contact_way(self, body: dict[str, Any]) -> dict[str, Any]:
        config_id = f"way{len(self.ways)}"
        self.ways[config_id] = body
        return {"config_id": config_id, "qr_code": "https://q"}

    def _list_contact_way(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._paged("contact_way", [{"config_id": way} for way in self.ways], body)

    def _get_contact_way(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"contact_way": {"config_id": body["config_id"], **self.ways[body["config_id"]]}}

    def _add_corp_tag(self, body: dict[str, Any]) -> dict[str, Any]:
        group = {"group_id": "g1", "group_name": body["group_name"], "tag": [{"name": t["name"]} for t in body["tag"]]}
        self.tags[body["group_name"]] = group
        return {"tag_group": group}

    def _get_corp_tag_list(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"tag_group": list(self.tags.values())}

    def _add_moment_task(self, body: dict[str, Any]) -> dict[str, Any]:
        self.moments[f"mom{len(self.moments)}"] = body
        return {"jobid": f"job{len(self.moments)}"}

    def _get_moment_list(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [{"moment_id": moment, "text": made["text"]} for moment, made in self.moments.items()]
        return self._paged("moment_list", found, body)

    def _get_moment_task(self, body: dict[str, Any]) -> dict[str, Any]:
        users = self.moments[body["moment_id"]]["visible_range"]["sender_list"]["user_list"]
        return self._paged("task_list", [{"userid": user, "publish_status": 0} for user in users], body)

    def _transfer_customer(self, body: dict[str, Any]) -> dict[str, Any]:
        items = []
        for customer in body["external_userid"]:
            key = (body["handover_userid"], body["takeover_userid"], customer)
            known = key in self.transfers or customer in self.strangers
            if not known:
                self.transfers[key] = self.now_ms // 1000 + 86_400
            items.append({"external_userid": customer, "errcode": 40129 if known else 0})
        return {"customer": items}

    def _transfer_result(self, body: dict[str, Any]) -> dict[str, Any]:
        pair = (body["handover_userid"], body["takeover_userid"])
        rows = [
            {"external_userid": key[2], "status": 2, "takeover_time": at}
            for key, at in self.transfers.items()
            if key[:2] == pair
        ]
        return self._paged("customer", rows, body)

    def _groupchat_onjob_transfer(self, body: dict[str, Any]) -> dict[str, Any]:
        failed = []
        for chat in body["chat_id_list"]:
            if self.owners.get(chat, "old") == body["new_owner"]:
                failed.append({"chat_id": chat, "errcode": 90504})
            self.owners[chat] = body["new_owner"]
        return {"failed_chat_list": failed}

    def _groupchat_get(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"group_chat": {"chat_id": body["chat_id"], "owner": self.owners.get(body["chat_id"], "old")}}


FINE, LOST, CARRIED_OUT, LATE, NOT_SENT = "fine", "lost", "carried_out", "late", "not_sent"
FATES = (FINE, LOST, CARRIED_OUT, LATE, NOT_SENT)
"""Of one call: answered; never arrives; arrives, the answer is lost; arrives a minute later; never leaves."""


class Died(Exception):
    """The process was killed here."""


@dataclass
class Limits:
    amount: int = 4

    def request_limit(self, corp_id: str, endpoint: str, field: str = "") -> int | None:
        return self.amount


class Shard:
    """Drives one action to its end through any number of deaths."""

    def __init__(
        self,
        action: Action,
        platform: Platform,
        *,
        fate: Callable[[Ask], str | int] = lambda ask: FINE,
        dies_at: Iterable[int] = (),
        order: Random | None = None,
        timings: Timings = TIMINGS,
    ) -> None:
        self.source = action
        self.platform = platform
        self.fate = fate
        self.dies_at = set(dies_at)
        self.order = order or Random(0)
        self.limits = Limits()
        self.suppressed: set[str] = set()
        self.ledger: dict[str, LedgerEntry] = {}
        self.outcomes: list[ActionOutcome] = []
        self.points = 0
        """Places so far at which it could have died."""
        self.deaths = 0
        self.asked: list[Ask] = []
        self.work: Work | None = None
        self._forgotten = False
        self._records: list[LedgerEntry] = []
        self._published: list[ActionOutcome] = []
        self._late: list[tuple[int, Ask]] = []
        self.around = Surroundings(
            error_table=lambda: TABLE,
            limits=lambda: self.limits,
            rules=lambda: timings,
            suppressed=lambda corp_id, customer_id: customer_id in self.suppressed,
            agent_id=lambda corp_id: "1000002",
            known_message=self._known,
        )

    @property
    def now_ms(self) -> int:
        return self.platform.now_ms

    def run(self, until_ms: int = NOW + 90 * DAY, steps: int = 20_000) -> list[ActionOutcome]:
        """Until the action has ended or ``until_ms`` has come; all outcomes so far."""
        for _ in range(steps):
            try:
                if not self.turn():
                    return self.outcomes
                if self.now_ms > until_ms:
                    return self.outcomes
            except Died:
                self.die()
        raise AssertionError(f"no end after {steps} steps")

    def die(self) -> None:
        """Everything in memory is gone."""
        self.deaths += 1
        self.work = None
        self._records, self._published = [], []
        self.platform.now_ms += 1_500

    def turn(self) -> bool:
        """One cycle; False when there is nothing more to do."""
        self._arrive_late()
        work = self._at_hand()
        if work is None:
            return False
        self._follow(work.past(self.now_ms, self.now_ms))
        self.commit()
        if work.ended:
            return self._forget()
        leaving: list[Ask] = []
        for ask in self.order.sample(asks := work.asks(self.now_ms), len(asks)):
            outgoing = work.going_out(ask, self.now_ms, b"{}", "rev")
            if outgoing is not None:
                leaving.append(outgoing)
        self._keep(work)
        self.commit()
        for ask in self.order.sample(leaving, len(leaving)):
            self._call(work, ask)
            if work.ended:
                return self._forget()
        if not leaving:
            due_ms = work.due_ms()
            assert due_ms, "an action that is not over has something scheduled when nothing is out"
            later = [at_ms for at_ms, _ in self._late]
            self.platform.now_ms = max(self.now_ms, min([max(due_ms, self.now_ms + 1), *later]))
        return True

    def _at_hand(self) -> Work | None:
        if self.work is not None:
            return self.work
        held = [entry for entry in self.ledger.values() if is_open(entry)]
        if held:
            self.work = restore(held, self.around, self.now_ms)
        elif not self._forgotten and self.source.action_id not in self.ledger:
            begun = begin(self.source, self.around, self.now_ms)
            if isinstance(begun, End):
                self.outcomes.append(outcome_of(self.source, begun, self.now_ms))
                self._forgotten = True
                return None
            self.work = begun
        return self.work

    def _forget(self) -> bool:
        self.work, self._forgotten = None, True
        return bool(self._late)

    def _call(self, work: Work, ask: Ask) -> None:
        self._may_die()
        self.asked.append(ask)
        if ask.durable:
            assert any(e.state == "prepared" and e.memory for e in self.ledger.values()) or "#remind" in ask.key
        fate = self.fate(ask)
        self.platform.now_ms += 200
        result: Result
        match fate:
            case "fine":
                errcode, body = self.platform.carry_out(ask.endpoint, ask.payload)
                result = Answer(errcode, body, 0.2)
            case "carried_out":
                self.platform.carry_out(ask.endpoint, ask.payload)
                result = Unknown("timeout", 20.0)
            case "late":
                self._late.append((self.now_ms + 60_000, ask))
                result = Unknown("timeout", 20.0)
            case "lost":
                result = Unknown("connection_broken", 0.2)
            case "not_sent":
                result = NotSent("connection_refused", 0.0)
            case int():
                result = Answer(fate, json.dumps({"errcode": fate}).encode(), 0.2)
            case _:
                raise AssertionError(fate)
        self._may_die()
        self._follow(work.answered(ask, result, self.now_ms, self.now_ms, self.order.random()))
        self.commit()

    def _arrive_late(self) -> None:
        due = [ask for at_ms, ask in self._late if at_ms <= self.now_ms]
        self._late = [late for late in self._late if late[0] > self.now_ms]
        for ask in due:
            self.platform.carry_out(ask.endpoint, ask.payload)

    def tell(self, effects: Effects) -> None:
        """What a call from outside led to: cancelled, settled by a person."""
        self._follow(effects)
        self.commit()

    def _follow(self, effects: Effects) -> None:
        self._published += effects.outcomes
        if self.work is not None:
            self._keep(self.work)

    def _keep(self, work: Work) -> None:
        self._records += work.records(self.now_ms)

    def commit(self) -> None:
        """One transaction."""
        self._may_die()
        for entry in self._records:
            self.ledger[entry.action_id] = codec().decode_as(LedgerEntry, codec().encode(entry))
        self.outcomes += self._published
        self._records, self._published = [], []
        self._may_die()

    def _may_die(self) -> None:
        self.points += 1
        if self.points in self.dies_at:
            raise Died

    def _known(self, corp_id: str, made: str) -> bool:
        return any(entry.message_id == made for entry in [*self.ledger.values(), *self._records])


def check_outcomes(outcomes: list[ActionOutcome]) -> None:
    """One outcome each, from the closed set."""
    assert not [key for key, count in Counter(o.action_id for o in outcomes).items() if count > 1]
    for outcome in outcomes:
        assert outcome.detail in DETAILS, outcome.detail
        codec().decode_as(ActionOutcome, codec().encode(outcome))


def people_in(platform: Platform) -> Counter[str]:
    """How many accepted messages each person is in."""
    return Counter(person for message in platform.messages for rows in message.rows.values() for person in rows)


def of_people(outcomes: list[ActionOutcome], send_id: str = "a1") -> dict[str, ActionOutcome]:
    """The outcomes of customers of a send."""
    return {o.customer_id: o for o in outcomes if o.customer_id and o.action_id != send_id}


def of_chunks(outcomes: list[ActionOutcome], send_id: str = "a1") -> list[ActionOutcome]:
    return [o for o in outcomes if o.parent_id == send_id]


def of_send(outcomes: list[ActionOutcome], send_id: str = "a1") -> ActionOutcome:
    return next(o for o in outcomes if o.action_id == send_id)


def changed(timings: Timings, **changes: Any) -> Timings:
    """Timings with some values changed: ``sends={"people_a_step": 2}``."""
    for name, values in changes.items():
        timings = msgspec.structs.replace(timings, **{name: msgspec.structs.replace(getattr(timings, name), **values)})
    return timings
