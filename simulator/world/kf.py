"""微信客服: accounts, who serves them, and every conversation as a state machine with the log that ``sync_msg`` reads.

Fact sheet 3.11, 2.5 and 6, point 16. A conversation is one (account, customer): 0 new, 1 bot, 2 queue, 3 human, 4 ended
or not begun. It begins anew with the first message a customer writes after it ended (entering alone begins nothing) and
ends by the servicer, by the API, or when the customer has been silent for 48 h. What people do goes into the account's
log and wakes the apps up with a ``kf_msg_or_event``; what is sent through the API stands in the log too, unseen, so a
page of ``sync_msg`` may be empty although more follows. A message that was taken may still fail: ``msg_send_fail``.

Staff at their phones take customers from the queue, answer them, and end what has gone quiet, by seeded habit (section
``kf_habits``). Customers move by :meth:`KfDesk.enter`, :meth:`KfDesk.write` and :meth:`KfDesk.recall` alone. Times are
epoch seconds of business time.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from simulator.platform.errors import ApiError
from simulator.platform.throttle import Limits, Throttle
from simulator.world.corp import CorpWorld
from simulator.world.days import day_start
from simulator.world.kf_records import (
    BOT,
    ENDED,
    HUMAN,
    NEW,
    QUEUE,
    Account,
    Code,
    KfHabits,
    KfRules,
    Row,
    Sent,
    Session,
    Tally,
)
from simulator.world.people import ACTIVE, LEFT
from simulator.world.roster import Roster

_STEPS: dict[int, tuple[int, ...]] = {
    NEW: (BOT, QUEUE, HUMAN, ENDED),
    BOT: (QUEUE, HUMAN, ENDED),
    QUEUE: (HUMAN, ENDED),
    HUMAN: (HUMAN, ENDED),
}
"""What the API may change a state into; an ended conversation is changed by people only (D94669)."""

CUSTOMER, SYSTEM, SERVICER = 3, 4, 5
"""``origin`` of a row of the log."""
_TAKEN, _HANDED_OVER, _ENDED, _REOPENED = 1, 2, 3, 4
"""``change_type`` of session_status_change."""
_ACCOUNT_GONE, _APP_CLOSED, _TOO_LATE, _SESSION_ENDED, _UNVERIFIED, _REFUSED, _NOBODY, _UNSAFE = (
    1,
    2,
    4,
    5,
    8,
    10,
    11,
    13,
)
"""``fail_type`` of msg_send_fail. 6 and 12 cannot follow a send that was taken here; 0 is for causes nobody knows."""
_SWEEP = 4_096
"""Rows or codes between two sweeps of what is too old."""
_ANSWERS = ("您好，请问有什么可以帮您？", "好的，我马上为您处理。", "已经为您登记，稍后回复您。")


class KfDesk:
    """微信客服 of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("kf", KfRules)
        self.habits = corp.rules_of("kf_habits", KfHabits)
        self.accounts: dict[str, Account] = {}
        """In the order they were opened, deleted ones too."""
        self.sessions: dict[tuple[str, str], Session] = {}
        self.sent: dict[str, Sent] = {}
        """Messages through the API by msgid."""
        self.ways: dict[str, tuple[str, str]] = {}
        """Link → (account, scene)."""
        self.tallies: dict[tuple[int, str, str], Tally] = {}
        """(day's midnight UTC+8, account, servicer or empty) → figures."""
        self._corp = corp
        self._serial = 0
        self._codes: dict[str, Code] = {}
        self._tokens: dict[str, tuple[str, int]] = {}
        self._token_ages: deque[tuple[int, str]] = deque()
        self._messages: dict[str, tuple[str, str, int, str]] = {}
        """msgid of a person's message → (account, customer, time, servicer or empty), as long as it can be recalled."""
        self._untokened = Throttle(
            Limits(per_minute=self.rules.untokened_per_minute, per_hour=self.rules.untokened_per_hour)
        )
        self._entered: set[str] = set()
        """Customers who have been at any account."""
        self._waiting_since: dict[tuple[str, str], int] = {}
        """First message that a human has not answered yet."""
        corp.of(Roster).left.append(self._left)

    # Accounts and servicers: through the API, or in the console.

    def open_account(self, name: str, media_id: str = "", *, managed: bool = True) -> Account:
        """A new account. Raises ApiError 45024 when there are too many."""
        if sum(not account.deleted for account in self.accounts.values()) >= self.rules.accounts:
            raise ApiError(45024)
        account = Account("wk" + self._id("account"), name, "", managed)
        self.picture(account, media_id)
        self.accounts[account.open_kfid] = account
        return account

    def picture(self, account: Account, media_id: str) -> None:
        """Sets the avatar."""
        face = hashlib.blake2b(f"{account.open_kfid}|{media_id}".encode(), digest_size=8).hexdigest()
        account.avatar = f"https://avatar.example/{face}/0"

    def close_account(self, account: Account) -> None:
        """Deletes it: conversations end without a word; what happened stays readable for three days."""
        account.deleted = True
        for session in self.sessions.values():
            if session.open_kfid == account.open_kfid:
                self._move(session, ENDED)

    def account(self, open_kfid: str, *, also_deleted: bool = False) -> Account:
        """Raises ApiError 95000 (never was), 95004 (deleted) or 48007 (not the API's to manage)."""
        account = self.accounts.get(open_kfid)
        if account is None:
            raise ApiError(95000)
        if account.deleted and not also_deleted:
            raise ApiError(95004)
        if not account.managed:
            raise ApiError(48007)
        return account

    def authorise(self, now_s: int, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """An admin gives accounts into the API's hands or takes them away: kf_account_auth_change (fact sheet 2.5)."""
        for ids, managed in ((add, True), (remove, False)):
            for open_kfid in ids:
                self.accounts[open_kfid].managed = managed
        fields = [("Event", "kf_account_auth_change")]
        fields += [("AuthAddOpenKfId", open_kfid) for open_kfid in add]
        fields += [("AuthDelOpenKfId", open_kfid) for open_kfid in remove]
        self._corp.emit(now_s, fields)

    def way(self, account: Account, scene: str) -> str:
        """The account's link, with the scene in it."""
        url = "https://work.weixin.qq.com/kfid/kf" + account.open_kfid[2:]
        if scene:
            digest = hashlib.blake2b(f"{self._corp.seed}|{account.open_kfid}|{scene}".encode(), digest_size=12)
            url += "?enc_scene=ENC" + digest.hexdigest()
        self.ways[url] = (account.open_kfid, scene)
        return url

    def serves(self, account: Account, staff_id: str) -> bool:
        """By name or by department."""
        if staff_id in account.servicers:
            return True
        member = self._corp.people.staff.get(staff_id)
        return (member is not None and member.status != LEFT) and any(
            above in account.departments for department in member.departments for above in self._lineage(department)
        )

    def check_servicer(self, account: Account, staff_id: str) -> None:
        """Raises ApiError 95014 (not a servicer, or not active) or 95019 (off duty)."""
        member = self._corp.people.staff.get(staff_id)
        if member is None or member.status != ACTIVE or not self.serves(account, staff_id):
            raise ApiError(95014)
        if staff_id in account.off_duty:
            raise ApiError(95019)

    def dismiss(self, account: Account, staff_ids: Iterable[str], now_s: int) -> None:
        """Conversations of whoever serves no more go back to the queue (the platform documents nothing)."""
        gone = {staff_id for staff_id in staff_ids if not self.serves(account, staff_id)}
        for staff_id in gone:
            account.off_duty.pop(staff_id, None)
        for session in self.sessions.values():
            if session.open_kfid == account.open_kfid and session.servicer in gone:
                self.change_state(session, QUEUE, "", now_s)

    def duty(self, open_kfid: str, staff_id: str, *, on: bool, now_s: int, stop_type: int = 0) -> bool:
        """A servicer goes on or off duty in the client. ``stop_type`` 0 stopped, 1 paused. False: nothing changed."""
        account = self.accounts[open_kfid]
        if account.deleted or not self.serves(account, staff_id) or (staff_id not in account.off_duty) == on:
            return False
        event: dict[str, Any] = {"event_type": "servicer_status_change", "servicer_userid": staff_id}
        event |= {"status": 1 if on else 2, "open_kfid": open_kfid}
        if on:
            del account.off_duty[staff_id]
        else:
            account.off_duty[staff_id] = event["stop_type"] = stop_type
        self._event(account, now_s, event)
        return True

    # Customers.

    def enter(
        self,
        open_kfid: str,
        customer_id: str,
        now_s: int,
        *,
        scene: str = "",
        scene_param: str = "",
        wechat_channels: Mapping[str, Any] | None = None,
    ) -> str:
        """A customer opens the conversation. The welcome code; empty: greeted already, or they wrote within 48 h."""
        account = self.accounts[open_kfid]
        if account.deleted:
            return ""
        session = self.session(open_kfid, customer_id)
        session.entered_s, session.scene, session.scene_param = now_s, scene, scene_param
        session.wechat_channels = dict(wechat_channels or {})
        self._entered.add(customer_id)
        event: dict[str, Any] = {"event_type": "enter_session", "open_kfid": open_kfid, "external_userid": customer_id}
        event |= {"scene": scene, "scene_param": scene_param}
        code = ""
        last_s = max(session.greeted_s, session.written_s)
        if not last_s or now_s - last_s > self.rules.window_s:
            code = event["welcome_code"] = self._code(session, now_s + self.rules.event_code_s)
            session.greeted_s = now_s
        if session.wechat_channels:
            event["wechat_channels"] = session.wechat_channels
        self._event(account, now_s, event)
        return code

    def enter_by(self, url: str, customer_id: str, now_s: int, *, scene_param: str = "") -> str:
        """A customer opens a link that :meth:`way` made."""
        open_kfid, scene = self.ways[url]
        return self.enter(open_kfid, customer_id, now_s, scene=scene, scene_param=scene_param)

    def write(
        self,
        open_kfid: str,
        customer_id: str,
        now_s: int,
        content: str = "你好",
        *,
        msgtype: str = "text",
        menu_id: str = "",
        **fields: Any,
    ) -> str:
        """A customer writes. ``fields``: the content of other types than text. The msgid; empty: nobody gets it."""
        account = self.accounts[open_kfid]
        session = self.session(open_kfid, customer_id)
        self._entered.add(customer_id)
        if account.deleted:
            return ""
        if session.rejected:
            for tally in self._tallies(session, now_s):
                tally.rejected.add(customer_id)
            return ""
        begins = session.state == ENDED
        if begins:
            self._move(session, NEW)
        session.written_s, session.said_s, session.sent = now_s, now_s, 0
        for tally in self._tallies(session, now_s):
            tally.sessions += begins
            tally.messages += 1
            tally.customers.add(customer_id)
        body: dict[str, Any] = dict(fields)
        if msgtype == "text":
            body["content"] = content
            if menu_id:
                body["menu_id"] = menu_id
        msgid = self._message(account, session, now_s, CUSTOMER, msgtype, body)
        if not session.watched:
            session.watched = True
            self._corp.schedule.at(now_s + self.rules.window_s + 1, partial(self._fall_silent, session))
        self._waiting_since.setdefault((open_kfid, customer_id), now_s)
        if session.state == HUMAN:
            self._think(session, now_s)
        return msgid

    def recall(self, msgid: str, now_s: int) -> bool:
        """Whoever wrote it takes a message back. False when it is too late or not theirs to recall."""
        known = self._messages.get(msgid)
        if known is None or now_s - known[2] > self.rules.recall_s:
            return False
        open_kfid, customer_id, _, servicer = self._messages.pop(msgid)
        event: dict[str, Any] = {"event_type": "servicer_recall_msg" if servicer else "user_recall_msg"}
        event |= {"open_kfid": open_kfid, "external_userid": customer_id, "recall_msgid": msgid}
        if servicer:
            event["servicer_userid"] = servicer
        self._event(self.accounts[open_kfid], now_s, event)
        return True

    def refuse(self, open_kfid: str, customer_id: str, *, refuses: bool = True) -> None:
        """A customer shuts the account out, or lets it in again: nobody is told, sends fail with type 10."""
        self.session(open_kfid, customer_id).refuses = refuses

    # Servicers, in the client.

    def take(self, open_kfid: str, customer_id: str, staff_id: str, now_s: int) -> str:
        """A servicer takes a customer from the queue. The msg_code (48 h); empty: cannot."""
        session = self.session(open_kfid, customer_id)
        if session.state != QUEUE or not self._can_serve(open_kfid, staff_id):
            return ""
        self.change_state(session, HUMAN, staff_id, now_s)
        code = self._code(session, now_s + self.rules.queue_code_s)
        self._changed(session, now_s, _TAKEN, "", staff_id, code)
        return code

    def hand_over(self, open_kfid: str, customer_id: str, to_staff_id: str, now_s: int) -> bool:
        """The servicer passes the customer to a colleague."""
        session = self.session(open_kfid, customer_id)
        before = session.servicer
        if session.state != HUMAN or to_staff_id == before or not self._can_serve(open_kfid, to_staff_id):
            return False
        self.change_state(session, HUMAN, to_staff_id, now_s)
        self._changed(session, now_s, _HANDED_OVER, before, to_staff_id, "")
        return True

    def end(self, open_kfid: str, customer_id: str, now_s: int) -> str:
        """The servicer ends the conversation. The msg_code (20 s) for a closing word; empty: nothing to end."""
        session = self.session(open_kfid, customer_id)
        if session.state != HUMAN:
            return ""
        before = session.servicer
        self._move(session, ENDED)
        code = self._code(session, now_s + self.rules.event_code_s)
        self._changed(session, now_s, _ENDED, before, "", code)
        return code

    def answer(self, open_kfid: str, customer_id: str, staff_id: str, now_s: int, content: str) -> str:
        """A servicer writes in the client; in an ended conversation that opens it again. The msgid; empty: cannot."""
        account, session = self.accounts[open_kfid], self.session(open_kfid, customer_id)
        if account.deleted or not self.serves(account, staff_id):
            return ""
        if session.state == ENDED and session.written_s and now_s - session.written_s <= self.rules.window_s:
            self.change_state(session, HUMAN, staff_id, now_s)
            self._changed(session, now_s, _REOPENED, "", staff_id, "")
        if session.state != HUMAN or session.servicer != staff_id:
            return ""
        session.said_s = now_s
        since_s = self._waiting_since.pop((open_kfid, customer_id), None)
        if not session.answered:
            session.answered = True
            for tally in self._tallies(session, now_s):
                tally.replied += 1
                tally.first_reply_s += now_s - since_s if since_s is not None else 0
        stint = session.stint
        self._corp.schedule.at(now_s + self.habits.quiet_end_s, partial(self._end_if_quiet, session, stint))
        return self._message(account, session, now_s, SERVICER, "text", {"content": content}, staff_id)

    def reject(self, open_kfid: str, customer_id: str, *, on: bool, now_s: int) -> bool:
        """The servicer shuts a customer out or lets them in again. False: nothing changed, or nobody serves them."""
        session = self.session(open_kfid, customer_id)
        if session.rejected == on or (on and session.state != HUMAN):
            return False
        session.rejected = on
        event = {
            "event_type": "reject_customer_msg_switch_change",
            "servicer_userid": session.servicer,
            "open_kfid": open_kfid,
            "external_userid": customer_id,
            "reject_switch": int(on),
        }
        self._event(self.accounts[open_kfid], now_s, event)
        return True

    # What the API does to conversations.

    def session(self, open_kfid: str, customer_id: str) -> Session:
        """The conversation, not begun when there was none."""
        found = self.sessions.get((open_kfid, customer_id))
        if found is None:
            found = self.sessions[open_kfid, customer_id] = Session(open_kfid, customer_id)
        return found

    def peek(self, open_kfid: str, customer_id: str) -> Session | None:
        """The conversation, if there ever was one."""
        return self.sessions.get((open_kfid, customer_id))

    def knows(self, customer_id: str) -> bool:
        """Whether the customer was ever at one of the accounts."""
        return customer_id in self._entered

    def last_context(self, customer_id: str, now_s: int) -> Session | None:
        """Where the customer entered last, within 48 h."""
        entered = [
            session
            for open_kfid in self.accounts
            if (session := self.peek(open_kfid, customer_id)) is not None
            and session.entered_s
            and now_s - session.entered_s <= self.rules.window_s
        ]
        return max(entered, key=lambda session: session.entered_s, default=None)

    def transfer(self, account: Account, customer_id: str, state: int, staff_id: str, now_s: int) -> str:
        """service_state/trans: the msg_code of a first move to the queue or a human (48 h) and of an end (20 s), or
        empty. Raises ApiError 95013 (ended), 95016 (no such step), 95014 or 95019 (servicer)."""
        session = self.peek(account.open_kfid, customer_id)
        if session is None or session.state == ENDED:
            raise ApiError(95013)
        before = session.state
        if state not in _STEPS[before] or (before == HUMAN == state and staff_id == session.servicer):
            raise ApiError(95016)
        if state == HUMAN:
            self.check_servicer(account, staff_id)
        self.change_state(session, state, staff_id if state == HUMAN else "", now_s)
        if state == ENDED:
            return self._code(session, now_s + self.rules.event_code_s)
        if state == QUEUE or (state == HUMAN and before in (NEW, BOT)):
            return self._code(session, now_s + self.rules.queue_code_s)
        return ""

    def change_state(self, session: Session, state: int, staff_id: str, now_s: int) -> None:
        """Moves a conversation and sets people's habits going; says nothing to anybody."""
        before = session.state
        self._move(session, state, staff_id)
        if state == BOT:
            for tally in self._tallies(session, now_s):
                tally.bot_sessions += 1
        elif state == QUEUE:
            self._queue(session, now_s)
        elif state == HUMAN:
            session.answered = False
            for tally in self._tallies(session, now_s)[1:]:
                tally.sessions += 1
                tally.customers.add(session.customer_id)
            # Whoever waited with a message is answered; a chat that was handed over goes on.
            if before != ENDED:
                self._think(session, now_s)

    def send(
        self, open_kfid: str, customer_id: str, now_s: int, msgid: str, msgtype: str, content: Mapping[str, Any]
    ) -> str:
        """send_msg: takes a message. Its msgid.

        Raises ApiError 95033 (msgid used), 95031 (the customer never wrote), 95002 (not for 48 h), 95013 (ended), 95018
        (queue or human) or 95001 (five sent). Which of 95031 and 95002 is which is undocumented.
        """
        session = self.peek(open_kfid, customer_id)
        if msgid and msgid in self.sent:
            raise ApiError(95033)
        if session is None or not session.written_s:
            raise ApiError(95031)
        if now_s - session.written_s > self.rules.window_s:
            raise ApiError(95002)
        if session.state == ENDED:
            raise ApiError(95013)
        if session.state not in (NEW, BOT):
            raise ApiError(95018)
        if session.sent >= self.rules.messages_per_window:
            raise ApiError(95001)
        session.sent += 1
        session.said_s = now_s
        return self._take_in(session, now_s, msgid, msgtype, content, on_event=False)

    def code(self, text: str, now_s: int) -> Code:
        """Looks a code up. Raises ApiError 40035 (unknown or used; the sheet names no code) or 95002 (too old)."""
        code = self._codes.get(text)
        if code is None or code.used:
            raise ApiError(40035)
        if now_s > code.expires_s:
            raise ApiError(95002)
        return code

    def send_on_event(self, text: str, now_s: int, msgid: str, msgtype: str, content: Mapping[str, Any]) -> str:
        """One message for a code; it counts for no limit. Raises ApiError as :meth:`code`, or 95033."""
        code = self.code(text, now_s)
        if msgid and msgid in self.sent:
            raise ApiError(95033)
        code.used = True
        return self._take_in(
            self.session(code.open_kfid, code.customer_id), now_s, msgid, msgtype, content, on_event=True
        )

    # The log.

    def check_token(self, token: str, open_kfid: str, now_s: int) -> None:
        """Raises ApiError 95007 for a token that is unknown, of another account, or older than ten minutes."""
        known = self._tokens.get(token)
        if known is None or known[0] != open_kfid or now_s > known[1]:
            raise ApiError(95007)

    def count_untokened(self, clock_s: float) -> None:
        """A sync_msg without token. Raises ApiError 45009 past the strict limit."""
        self._untokened.count(f"corp:{self._corp.corp_id}", "kf/sync_msg", clock_s)

    def read(self, account: Account, position: int, limit: int, now_s: int) -> tuple[list[dict[str, Any]], int, bool]:
        """Rows from a position on, the next position, and whether more follows. Older than three days is gone."""
        self._forget(account, now_s)
        rows = account.rows
        begin = min(max(0, position - account.first), len(rows))
        page = rows[begin : begin + limit]
        end = begin + len(page)
        return [row.content for row in page if not row.unseen], account.first + end, end < len(rows)

    def tally(self, day_s: int, open_kfid: str, staff_id: str) -> Tally:
        """The figures of a day; ``open_kfid`` empty: of all accounts. ``staff_id`` ``*``: of all servicers together."""
        total = Tally()
        if staff_id != "*":
            for kfid in [open_kfid] if open_kfid else self.accounts:
                if (found := self.tallies.get((day_s, kfid, staff_id))) is not None:
                    total.add(found)
            return total
        for (day, kfid, servicer), found in self.tallies.items():
            if day == day_s and servicer and open_kfid in ("", kfid):
                total.add(found)
        return total

    # Inside.

    def _take_in(
        self,
        session: Session,
        now_s: int,
        msgid: str,
        msgtype: str,
        content: Mapping[str, Any],
        *,
        on_event: bool,
    ) -> str:
        msgid = msgid or self._id("sent")
        sent = Sent(msgid, session.open_kfid, session.customer_id, now_s, msgtype, on_event)
        self.sent[msgid] = sent
        row = {"msgid": msgid, "msgtype": msgtype, msgtype: dict(content)}
        self._append(self.accounts[session.open_kfid], Row(now_s, row, unseen=True))
        self._corp.schedule.at(now_s + self.rules.deliver_s, partial(self._deliver, session, sent))
        return msgid

    def _deliver(self, session: Session, sent: Sent, due_s: int) -> None:
        fail = self._failure(session, sent, due_s)
        if fail < 0:
            sent.fate = "delivered"
            return
        sent.fate, sent.fail_type = "failed", fail
        event: dict[str, Any] = {
            "event_type": "msg_send_fail",
            "open_kfid": sent.open_kfid,
            "external_userid": sent.customer_id,
        }
        event |= {"fail_msgid": sent.msgid, "fail_type": fail}
        self._event(self.accounts[sent.open_kfid], due_s, event)

    def _failure(self, session: Session, sent: Sent, due_s: int) -> int:
        """Why a taken message does not arrive; -1: it does."""
        account = self.accounts[sent.open_kfid]
        if account.deleted:
            return _ACCOUNT_GONE
        if not account.managed:
            return _APP_CLOSED
        if not self.rules.verified:
            return _UNVERIFIED
        if not any(member.status == ACTIVE for member in self._corp.people.staff.values()):
            return _NOBODY
        if session.refuses:
            return _REFUSED
        if not sent.on_event:
            if due_s - session.written_s > self.rules.window_s + self.rules.deliver_s:
                return _TOO_LATE
            if session.state == ENDED:
                return _SESSION_ENDED
        if self._corp.random("kf.unsafe", sent.msgid).random() < self.rules.unsafe_share:
            return _UNSAFE
        return -1

    def _left(self, staff_id: str, now_s: int) -> None:
        """Whoever left the corp serves no more; who is only banned goes on, as these are no customers of theirs."""
        if self._corp.people.staff[staff_id].status != LEFT:
            return
        for account in self.accounts.values():
            account.servicers.pop(staff_id, None)
            self.dismiss(account, [staff_id], now_s)

    def _move(self, session: Session, state: int, staff_id: str = "") -> None:
        session.state, session.servicer = state, staff_id
        session.stint += 1
        if state == ENDED:
            session.rejected = False
            self._waiting_since.pop((session.open_kfid, session.customer_id), None)

    def _fall_silent(self, session: Session, due_s: int) -> None:
        """Ends a conversation whose customer has not written for 48 h, or looks again when that may be so."""
        session.watched = False
        if session.state == ENDED:
            return
        last_s = session.written_s + self.rules.window_s + 1
        if due_s < last_s:
            session.watched = True
            self._corp.schedule.at(last_s, partial(self._fall_silent, session))
            return
        human, before = session.state == HUMAN, session.servicer
        self._move(session, ENDED)
        if human:
            self._changed(session, due_s, _ENDED, before, "", "")

    def _queue(self, session: Session, now_s: int, after_s: int = 0) -> None:
        chance = self._corp.random("kf.take", session.open_kfid, session.customer_id, session.stint)
        wait = after_s or self._pause(chance.gauss(0.0, self.habits.spread), self.habits.take_median_s)
        self._corp.schedule.at(now_s + wait, partial(self._take_by_habit, session, session.stint))

    def _take_by_habit(self, session: Session, stint: int, due_s: int) -> None:
        if session.stint != stint or session.state != QUEUE:
            return
        account = self.accounts[session.open_kfid]
        able = [staff_id for staff_id in account.servicers if self._can_serve(account.open_kfid, staff_id)]
        if not able and account.departments:
            able = [staff_id for staff_id in self._corp.people.staff if self._can_serve(account.open_kfid, staff_id)]
        if not able:
            self._queue(session, due_s, self.habits.look_again_s)
            return
        chance = self._corp.random("kf.taker", session.open_kfid, session.customer_id, stint)
        self.take(session.open_kfid, session.customer_id, chance.choice(able), due_s)

    def _think(self, session: Session, now_s: int) -> None:
        """The servicer will answer what was written, or will not."""
        chance = self._corp.random("kf.answer", session.open_kfid, session.customer_id, session.stint, now_s)
        if chance.random() < self.habits.silent_share:
            return
        wait = self._pause(chance.gauss(0.0, self.habits.spread), self.habits.answer_median_s)
        step = partial(self._answer_by_habit, session, session.stint, session.written_s, chance.choice(_ANSWERS))
        self._corp.schedule.at(now_s + wait, step)

    def _answer_by_habit(self, session: Session, stint: int, written_s: int, words: str, due_s: int) -> None:
        # A later message has an answer of its own coming; this one would be a second to the same.
        if session.stint == stint and session.written_s == written_s:
            self.answer(session.open_kfid, session.customer_id, session.servicer, due_s, words)

    def _end_if_quiet(self, session: Session, stint: int, due_s: int) -> None:
        if session.stint == stint and due_s - session.said_s >= self.habits.quiet_end_s:
            self.end(session.open_kfid, session.customer_id, due_s)

    def _pause(self, deviation: float, median_s: int) -> int:
        return max(1, round(median_s * math.exp(deviation)))

    def _can_serve(self, open_kfid: str, staff_id: str) -> bool:
        try:
            self.check_servicer(self.accounts[open_kfid], staff_id)
        except ApiError:
            return False
        return True

    def _lineage(self, department: int) -> list[int]:
        """A department and those above it."""
        found: list[int] = []
        departments = self._corp.people.departments
        while department in departments and department not in found:
            found.append(department)
            department = departments[department].parent
        return found

    def _changed(self, session: Session, now_s: int, kind: int, before: str, after: str, code: str) -> None:
        event: dict[str, Any] = {"event_type": "session_status_change", "open_kfid": session.open_kfid}
        event |= {"external_userid": session.customer_id, "change_type": kind}
        if before:
            event["old_servicer_userid"] = before
        if after:
            event["new_servicer_userid"] = after
        if code:
            event["msg_code"] = code
        self._event(self.accounts[session.open_kfid], now_s, event)

    def _message(
        self,
        account: Account,
        session: Session,
        now_s: int,
        origin: int,
        msgtype: str,
        body: dict[str, Any],
        staff_id: str = "",
    ) -> str:
        msgid = self._id("message")
        row: dict[str, Any] = {"msgid": msgid, "open_kfid": account.open_kfid, "external_userid": session.customer_id}
        row |= {"send_time": now_s, "origin": origin, "msgtype": msgtype, msgtype: body}
        if staff_id:
            row["servicer_userid"] = staff_id
        # Only the newest can be recalled; they stand in order of time, so the oldest are first.
        while self._messages and now_s - next(iter(self._messages.values()))[2] > self.rules.recall_s:
            del self._messages[next(iter(self._messages))]
        self._messages[msgid] = (account.open_kfid, session.customer_id, now_s, staff_id)
        self._log(account, now_s, row)
        return msgid

    def _append(self, account: Account, row: Row) -> None:
        account.rows.append(row)
        # An account that nobody reads must not keep its log for ever.
        if (account.first + len(account.rows)) % _SWEEP == 0:
            self._forget(account, row.time_s)

    def _forget(self, account: Account, now_s: int) -> None:
        rows, horizon_s = account.rows, now_s - self.rules.history_s
        gone = next((at for at, row in enumerate(rows) if row.time_s >= horizon_s), len(rows))
        del rows[:gone]
        account.first += gone

    def _event(self, account: Account, now_s: int, event: dict[str, Any]) -> None:
        row = {"msgid": self._id("event"), "send_time": now_s, "origin": SYSTEM, "msgtype": "event", "event": event}
        self._log(account, now_s, row)

    def _log(self, account: Account, now_s: int, row: dict[str, Any]) -> None:
        self._append(account, Row(now_s, row))
        if not account.managed:
            return
        token = "ENC" + self._id("token")
        self._tokens[token] = (account.open_kfid, now_s + self.rules.token_s)
        self._token_ages.append((now_s + self.rules.token_s, token))
        while self._token_ages and self._token_ages[0][0] < now_s:
            del self._tokens[self._token_ages.popleft()[1]]
        fields = [("Event", "kf_msg_or_event"), ("Token", token), ("OpenKfId", account.open_kfid)]
        self._corp.emit(now_s, fields, sender=None)

    def _code(self, session: Session, expires_s: int) -> str:
        text = self._id("code")
        self._codes[text] = Code(session.open_kfid, session.customer_id, expires_s)
        if len(self._codes) % _SWEEP == 0:
            # Expired for longer than any code lives: nobody would send one of them any more.
            old_s = expires_s - 3 * self.rules.queue_code_s
            self._codes = {name: code for name, code in self._codes.items() if code.expires_s >= old_s}
        return text

    def _tallies(self, session: Session, now_s: int) -> list[Tally]:
        day_s = day_start(now_s)
        owners = ["", session.servicer] if session.servicer else [""]
        return [self.tallies.setdefault((day_s, session.open_kfid, owner), Tally()) for owner in owners]

    def _id(self, kind: str) -> str:
        self._serial += 1
        seed = f"{self._corp.seed}|{self._corp.corp_id}|kf|{kind}|{self._serial}"
        return hashlib.blake2b(seed.encode(), digest_size=15).hexdigest()
