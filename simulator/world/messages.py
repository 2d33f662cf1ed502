"""App messages to staff: who got what, what was dropped without a word, and the cards they press buttons on.

Fact sheet 3.12, 4.1 and 6, points 6 and 17. A day has an account's limit of person-times per app (45009 past it); of
what one app sends to one member, more than 30 a minute or 1,000 an hour is dropped silently: only the truth knows.

A card is seen by every recipient on their own (:class:`View`): it can be pressed once, an update renews or closes it, a
recall takes it away. Staff press by seeded habit (:mod:`simulator.world.habits` says who and when, section
``card_habits`` what); the event goes to the sending app alone. Times are epoch seconds of business time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.days import day_of
from simulator.world.habits import confirms_after_s
from simulator.world.people import ACTIVE, DISABLED, LEFT
from simulator.world.roster import Roster

EVERYBODY = "@all"
_SUBMITTED = ("vote_interaction", "multiple_interaction")
INTERACTIVE = ("button_interaction", *_SUBMITTED)
_MINUTE_S, _HOUR_S = 60, 3_600
_LOOKING_AT_ONCE = 500
"""Members whose reaction to a card is drawn in one go."""


class MessageRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``messages``: counts, seconds, bytes; all from two sources, but the response code's 72 h (an older
    comment has 24 h)."""

    users: int = 1_000
    parties: int = 100
    tags: int = 100
    day_per_account: int = 200
    accounts: int = 0
    """The corp's account limit; 0: as many as it has members."""
    member_per_minute: int = 30
    member_per_hour: int = 1_000
    duplicate_default_s: int = 1_800
    duplicate_most_s: int = 4 * _HOUR_S
    response_code_s: int = 72 * _HOUR_S
    recall_s: int = 24 * _HOUR_S
    text_bytes: int = 2_048
    markdown_bytes: int = 2_048
    title_bytes: int = 128
    description_bytes: int = 512
    url_bytes: int = 2_048
    articles: int = 8
    task_id_bytes: int = 128
    key_bytes: int = 1_024
    option_id_bytes: int = 128
    buttons: int = 6
    selection_options: int = 10
    checkbox_options: int = 20
    selects: int = 3
    select_options: int = 10
    horizontals: int = 6
    jumps: int = 3
    menu_actions: int = 3


class CardHabits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``card_habits``: shares."""

    first_share: float = 0.7
    """Of those who press a button, the first one; the others share the rest."""
    menu_share: float = 0.02
    """Of recipients who use a card's menu instead."""


@dataclass(slots=True)
class View:
    """A card as one member has it."""

    card: Mapping[str, Any]
    version: int = 0
    pressed: bool = False
    closed_with: str = ""
    """Name that an update put in place of the buttons; they can no longer be pressed."""


@dataclass(slots=True)
class AppMessage:
    """One message, for the truth."""

    msgid: str
    agent_id: str
    time_s: int
    msgtype: str
    content: Mapping[str, Any]
    """As it arrived: texts cut to their limits."""
    received: Mapping[str, None]
    """Members, in order."""
    dropped: tuple[str, ...]
    """Members past their limit: nobody is told."""
    recalled_s: int = 0
    repeats: int = 0
    """Calls that the duplicate check kept from being sent again."""
    views: dict[str, View] = field(default_factory=dict)
    """Members whose card is not as it was sent."""

    @property
    def card_type(self) -> str:
        return str(self.content.get("card_type", "")) if self.msgtype == "template_card" else ""

    def view(self, staff_id: str) -> View:
        """The card as this recipient has it."""
        found = self.views.get(staff_id)
        return found if found is not None else View(self.content)


@dataclass(frozen=True, slots=True)
class Press:
    """A button, submission or menu entry that somebody chose, for the truth."""

    time_s: int
    agent_id: str
    staff_id: str
    msgid: str
    task_id: str
    key: str
    menu: bool


@dataclass(slots=True)
class _ResponseCode:
    msgid: str
    agent_id: str
    expires_s: int
    used: bool = False


@dataclass(frozen=True, slots=True)
class Recipients:
    """Whom a call means: members, and what of it does not exist or is out of the app's sight."""

    members: tuple[str, ...]
    invalid_users: tuple[str, ...] = ()
    """Lower-cased, as the platform answers."""
    invalid_parties: tuple[str, ...] = ()
    invalid_tags: tuple[str, ...] = ()


@dataclass(slots=True)
class _Received:
    """Counters of one app and member: a minute and an hour, each from its first message on."""

    minute_s: int = 0
    minute: int = 0
    hour_s: int = 0
    hour: int = 0


class MessageBook:
    """All app messages of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("messages", MessageRules)
        self.messages: dict[str, AppMessage] = {}
        self.cards = CardBook(corp, self)
        self._corp = corp
        self._serial = 0
        self._days: dict[str, tuple[int, int]] = {}
        """App → (day, person-times)."""
        self._blocked: dict[str, int] = {}
        """App → day in which it may send no more."""
        self._received: dict[tuple[str, str], _Received] = {}
        self._recent: dict[tuple[str, str], tuple[int, str, dict[str, Any]]] = {}
        """(app, digest) → when it was sent, msgid, and what was answered."""
        self._hidden: dict[str, set[str]] = {}
        """App → members who do not see it."""

    def subscribe(self, agent_id: str, staff_id: str, now_s: int) -> bool:
        """A member comes into the app's visible range. False when they were in it, as all are at first."""
        hidden = self._hidden.get(agent_id, set())
        if staff_id not in hidden:
            return False
        hidden.discard(staff_id)
        self._tell_of_scope(agent_id, staff_id, now_s, "subscribe")
        return True

    def unsubscribe(self, agent_id: str, staff_id: str, now_s: int) -> bool:
        """A member leaves the app's visible range. False when they were not in it."""
        hidden = self._hidden.setdefault(agent_id, set())
        if staff_id in hidden or staff_id not in self._corp.people.staff:
            return False
        hidden.add(staff_id)
        self._tell_of_scope(agent_id, staff_id, now_s, "unsubscribe")
        return True

    def sees(self, agent_id: str, staff_id: str) -> bool:
        """Whether this member can get the app's messages: there, not disabled, in its visible range."""
        member = self._corp.people.staff.get(staff_id)
        if member is None or member.status in (LEFT, DISABLED):
            return False
        return staff_id not in self._hidden.get(agent_id, ())

    def resolve(self, agent_id: str, users: Sequence[str], parties: Sequence[str], tags: Sequence[str]) -> Recipients:
        """Members once each: those named, then those of departments (with all below them), then those of tags."""
        people = self._corp.people
        if users == [EVERYBODY]:
            return Recipients(tuple(staff_id for staff_id in people.staff if self.sees(agent_id, staff_id)))
        found = dict.fromkeys(staff_id for staff_id in users if self.sees(agent_id, staff_id))
        bad_users = tuple(staff_id.lower() for staff_id in users if staff_id not in found)
        departments, bad_parties = self._departments(parties)
        staff_of_tags: set[str] = set()
        bad_tags = []
        labels = self._corp.of(Roster).labels
        for tag in tags:
            label = labels.get(int(tag)) if _is_number(tag) else None
            if label is None:
                bad_tags.append(tag)
                continue
            staff_of_tags |= label.staff
            departments |= self._below(label.departments)
        if departments or staff_of_tags:
            for staff_id, member in people.staff.items():
                wanted = staff_id in staff_of_tags or any(d in departments for d in member.departments)
                if wanted and self.sees(agent_id, staff_id):
                    found[staff_id] = None
        return Recipients(tuple(found), bad_users, tuple(bad_parties), tuple(bad_tags))

    def repeated(self, agent_id: str, body: Mapping[str, Any], interval_s: int, now_s: int) -> dict[str, Any] | None:
        """What the same call was answered within the interval; None: it is new."""
        known = self._recent.get((agent_id, _digest(body)))
        if known is None or now_s - known[0] >= interval_s:
            return None
        self.messages[known[1]].repeats += 1
        return known[2]

    def remember(self, agent_id: str, body: Mapping[str, Any], now_s: int, msgid: str, answer: dict[str, Any]) -> None:
        """Notes a checked call for :meth:`repeated`; what is older than any interval is forgotten."""
        key = (agent_id, _digest(body))
        self._recent.pop(key, None)
        while self._recent and now_s - next(iter(self._recent.values()))[0] > self.rules.duplicate_most_s:
            del self._recent[next(iter(self._recent))]
        self._recent[key] = (now_s, msgid, answer)

    def send(
        self, agent_id: str, members: Sequence[str], msgtype: str, content: Mapping[str, Any], now_s: int
    ) -> tuple[AppMessage, str]:
        """Sends; the message and its response code (interactive cards only). Raises ApiError 45009 past the day's
        limit, which then holds until midnight."""
        self._count_day(agent_id, len(members), now_s)
        received: list[str] = []
        dropped: list[str] = []
        for staff_id in members:
            (received if self._within(agent_id, staff_id, now_s) else dropped).append(staff_id)
        self._serial += 1
        msgid = self._id("message", self._serial)
        message = AppMessage(msgid, agent_id, now_s, msgtype, content, dict.fromkeys(received), tuple(dropped))
        self.messages[msgid] = message
        return message, self.cards.sent(message, now_s) if msgtype == "template_card" else ""

    def recall(self, agent_id: str, msgid: str, now_s: int) -> None:
        """Takes a message back; once more is fine. Raises ApiError 40035 (not this app's; the sheet names no code) or
        42052 (older than 24 h)."""
        message = self.messages.get(msgid)
        if message is None or message.agent_id != agent_id:
            raise ApiError(40035)
        if now_s - message.time_s > self.rules.recall_s:
            raise ApiError(42052)
        message.recalled_s = message.recalled_s or now_s

    @property
    def dropped(self) -> int:
        """Person-times lost to the limits of members."""
        return sum(len(message.dropped) for message in self.messages.values())

    def _count_day(self, agent_id: str, persons: int, now_s: int) -> None:
        day = day_of(now_s)
        if self._blocked.get(agent_id) == day:
            raise ApiError(45009)
        known_day, count = self._days.get(agent_id, (day, 0))
        count = (count if known_day == day else 0) + persons
        if count > (self.rules.accounts or len(self._corp.people.staff)) * self.rules.day_per_account:
            self._blocked[agent_id] = day
            raise ApiError(45009)
        self._days[agent_id] = (day, count)

    def _within(self, agent_id: str, staff_id: str, now_s: int) -> bool:
        known = self._received.setdefault((agent_id, staff_id), _Received(now_s, 0, now_s, 0))
        if now_s - known.minute_s >= _MINUTE_S:
            known.minute_s, known.minute = now_s, 0
        if now_s - known.hour_s >= _HOUR_S:
            known.hour_s, known.hour = now_s, 0
        if known.minute >= self.rules.member_per_minute or known.hour >= self.rules.member_per_hour:
            return False
        known.minute += 1
        known.hour += 1
        return True

    def _departments(self, parties: Sequence[str]) -> tuple[set[int], list[str]]:
        there = self._corp.people.departments
        known = [party for party in parties if _is_number(party) and int(party) in there]
        return self._below(int(party) for party in known), [party for party in parties if party not in known]

    def _below(self, departments: Iterable[int]) -> set[int]:
        """These departments and all under them."""
        children: dict[int, list[int]] = {}
        for node in self._corp.people.departments.values():
            children.setdefault(node.parent, []).append(node.id)
        found: set[int] = set()
        waiting = list(departments)
        while waiting:
            department = waiting.pop()
            if department not in found:
                found.add(department)
                waiting += children.get(department, [])
        return found

    def _tell_of_scope(self, agent_id: str, staff_id: str, now_s: int, event: str) -> None:
        self._corp.emit(now_s, [("Event", event), ("AgentID", agent_id)], sender=staff_id, only_agent=agent_id)

    def _id(self, kind: str, number: int) -> str:
        seed = f"{self._corp.seed}|{self._corp.corp_id}|app|{kind}|{number}"
        return hashlib.blake2b(seed.encode(), digest_size=21).hexdigest()


class CardBook:
    """Cards in staff's hands."""

    def __init__(self, corp: CorpWorld, book: MessageBook) -> None:
        self.habits = corp.rules_of("card_habits", CardHabits)
        self.presses: list[Press] = []
        self._corp = corp
        self._book = book
        self._tasks: dict[tuple[str, str], str] = {}
        """(app, task_id) → msgid."""
        self._codes: dict[str, _ResponseCode] = {}
        self._serial = 0

    def check_task(self, agent_id: str, task_id: str, msgid: str = "") -> None:
        """Raises ApiError 42014 when the app used this task_id for another card."""
        known = self._tasks.get((agent_id, task_id))
        if known is not None and known != msgid:
            raise ApiError(42014)

    def sent(self, message: AppMessage, now_s: int) -> str:
        """A new card: staff will look at it. Its response code; empty for cards that nobody can press."""
        if task_id := message.content.get("task_id"):
            self._tasks[message.agent_id, task_id] = message.msgid
        self._show(message, message.received, now_s)
        return self._code(message, now_s) if message.card_type in INTERACTIVE else ""

    def message_of(self, agent_id: str, code: str, now_s: int) -> AppMessage:
        """Raises ApiError 60140 for a code that is unknown, used, another app's or older than 72 h."""
        known = self._codes.get(code)
        if known is None or known.used or known.agent_id != agent_id or now_s > known.expires_s:
            raise ApiError(60140)
        return self._book.messages[known.msgid]

    def update(
        self,
        code: str,
        members: Iterable[str],
        now_s: int,
        *,
        card: Mapping[str, Any] | None = None,
        replace_name: str = "",
    ) -> None:
        """Uses a code that :meth:`message_of` took: a new card, or buttons closed under another name."""
        known = self._codes[code]
        known.used = True
        message = self._book.messages[known.msgid]
        chosen = tuple(members)
        for staff_id in chosen:
            before = message.view(staff_id)
            message.views[staff_id] = (
                View(card, before.version + 1)
                if card is not None
                else View(before.card, before.version + 1, before.pressed, replace_name)
            )
        if card is not None:
            if task_id := card.get("task_id"):
                self._tasks[message.agent_id, task_id] = message.msgid
            self._show(message, chosen, now_s)

    def press(
        self, msgid: str, staff_id: str, key: str, now_s: int, selected: Sequence[tuple[str, Sequence[str]]] = ()
    ) -> str:
        """A member presses a button, or submits: template_card_event. ``selected``: (question, options).

        The event's response code; empty: it could not be pressed (recalled, pressed, closed, not theirs).
        """
        message = self._book.messages[msgid]
        view = message.view(staff_id)
        gone = message.recalled_s or staff_id not in message.received
        if gone or view.pressed or view.closed_with or key not in _keys(view.card):
            return ""
        view.pressed = True
        message.views[staff_id] = view
        return self._tell(message, view, staff_id, key, now_s, selected)

    def use_menu(self, msgid: str, staff_id: str, key: str, now_s: int) -> str:
        """A member uses the card's menu: template_card_menu_event, as often as they like. As :meth:`press`."""
        message = self._book.messages[msgid]
        view = message.view(staff_id)
        if message.recalled_s or staff_id not in message.received or key not in _menu_keys(view.card):
            return ""
        return self._tell(message, view, staff_id, key, now_s, None)

    def _tell(
        self,
        message: AppMessage,
        view: View,
        staff_id: str,
        key: str,
        now_s: int,
        selected: Sequence[tuple[str, Sequence[str]]] | None,
    ) -> str:
        """``selected`` None: by the menu."""
        task_id = str(view.card.get("task_id") or message.content.get("task_id", ""))
        code = self._code(message, now_s)
        self.presses.append(Press(now_s, message.agent_id, staff_id, message.msgid, task_id, key, selected is None))
        fields = [
            ("Event", "template_card_event" if selected is not None else "template_card_menu_event"),
            ("EventKey", _quoted(key)),
            ("TaskId", task_id),
            ("CardType", str(view.card.get("card_type", ""))),
            ("ResponseCode", code),
            ("AgentID", message.agent_id),
        ]
        if selected:
            fields.append(("SelectedItems", "".join(_selected_item(*item) for item in selected)))
        self._corp.emit(now_s, fields, sender=staff_id, only_agent=message.agent_id)
        return code

    def _show(self, message: AppMessage, members: Iterable[str], now_s: int) -> None:
        """Members look at a card, new or changed; each will press it when and if they are like that."""
        waiting = list(members)
        for at in range(0, len(waiting), _LOOKING_AT_ONCE):
            look = partial(self._look, message, waiting[at : at + _LOOKING_AT_ONCE], now_s)
            if at:
                # A card to a whole corp of 20,000 would keep its caller, and everybody else's, waiting for a second.
                self._corp.schedule.at(now_s, look)
            else:
                look(now_s)

    def _look(self, message: AppMessage, members: Sequence[str], shown_s: int, _due_s: int) -> None:
        for staff_id in members:
            view = message.view(staff_id)
            if not (_keys(view.card) or _menu_keys(view.card)):
                continue
            after = confirms_after_s(self._corp, staff_id, f"card|{message.msgid}|{view.version}")
            if after is not None:
                self._corp.schedule.at(shown_s + after, partial(self._act, message, staff_id, view.version))

    def _act(self, message: AppMessage, staff_id: str, version: int, due_s: int) -> None:
        member = self._corp.people.staff.get(staff_id)
        view = message.view(staff_id)
        if member is None or member.status != ACTIVE or view.version != version:
            return
        chance = self._corp.random("card", staff_id, message.msgid, version)
        menu, keys = _menu_keys(view.card), _keys(view.card)
        if menu and chance.random() < self.habits.menu_share:
            self.use_menu(message.msgid, staff_id, chance.choice(menu), due_s)
        elif keys:
            first = len(keys) == 1 or chance.random() < self.habits.first_share
            key = keys[0] if first else chance.choice(keys[1:])
            selected = []
            for question, options, several in _questions(view.card):
                count = chance.randint(1, len(options)) if several else 1
                chosen = set(chance.sample(range(len(options)), count))
                selected.append((question, [option for at, option in enumerate(options) if at in chosen]))
            self.press(message.msgid, staff_id, key, due_s, selected)

    def _code(self, message: AppMessage, now_s: int) -> str:
        self._serial += 1
        digest = hashlib.blake2b(f"{self._corp.seed}|{message.msgid}|{self._serial}".encode(), digest_size=24)
        code = digest.hexdigest()
        # They stand in the order they were given out, and so of their ends.
        while self._codes and next(iter(self._codes.values())).expires_s < now_s:
            del self._codes[next(iter(self._codes))]
        self._codes[code] = _ResponseCode(message.msgid, message.agent_id, now_s + self._book.rules.response_code_s)
        return code


def _keys(card: Mapping[str, Any]) -> list[str]:
    """What can be pressed: buttons that call back, or the one that submits."""
    kind = card.get("card_type")
    if kind == "button_interaction":
        return [str(button["key"]) for button in card.get("button_list") or () if not button.get("type")]
    return [str(card["submit_button"]["key"])] if kind in _SUBMITTED else []


def _menu_keys(card: Mapping[str, Any]) -> list[str]:
    return [str(action["key"]) for action in (card.get("action_menu") or {}).get("action_list") or ()]


def _questions(card: Mapping[str, Any]) -> list[tuple[str, list[str], bool]]:
    """(question, options, whether several may be chosen) of a card."""
    kind = card.get("card_type")
    asked: list[tuple[Mapping[str, Any], bool]] = []
    if kind == "button_interaction" and card.get("button_selection"):
        asked = [(card["button_selection"], False)]
    elif kind == "vote_interaction":
        asked = [(card["checkbox"], bool(card["checkbox"].get("mode")))]
    elif kind == "multiple_interaction":
        asked = [(select, False) for select in card["select_list"]]
    return [
        (str(question["question_key"]), [str(option["id"]) for option in question["option_list"]], several)
        for question, several in asked
        if not question.get("disable")
    ]


def _selected_item(question: str, options: Sequence[str]) -> str:
    ids = "".join(f"<OptionId>{_quoted(option)}</OptionId>" for option in options)
    return f"<SelectedItem><QuestionKey>{_quoted(question)}</QuestionKey><OptionIds>{ids}</OptionIds></SelectedItem>"


def _quoted(text: str) -> str:
    """Any text inside CDATA: keys are the app's own and may hold whatever XML has a meaning for."""
    legal = "".join(c for c in text if c in "\t\n" or (c >= " " and not "\ufffe" <= c <= "\uffff"))
    return "<![CDATA[" + legal.replace("]]>", "]]]]><![CDATA[>") + "]]>"


def _digest(body: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in body.items() if name != "duplicate_check_interval"}
    try:
        content = json.dumps(shown, sort_keys=True)
    except RecursionError:  # read at its deepest, a body cannot be written again from further down the stack
        raise ApiError(40035) from None
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS


_ID_DIGITS = 18
