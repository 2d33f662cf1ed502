"""What became of a call whose answer is missing: found out by asking WeCom, never guessed.

* "Made" needs WeCom's own record of it; "not made" needs a listing that was followed to its end and that began when the
  call must long have been visible. Everything else is asked again.
* A query that fails, or whose answer cannot be read, says nothing.
* For some endpoints no query can tell (:data:`SEARCHES` does not name them): a person settles those, or the horizon.

A search is a generator: it yields a query and is given the answer. Nothing of it is kept: after a takeover it begins
anew, for it only reads.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from services.executor import domain
from services.executor.timings import SettleTimes
from services.executor.work import Verdict
from siyu.wecom.client import Answer, NotSent, Result, Unknown
from siyu.wecom.errors import ErrorTable

_EXTERNAL = "externalcontact/"


@dataclass(frozen=True)
class Doubt:
    """A call without an answer. Business times in ms."""

    endpoint: str
    payload: Mapping[str, Any]
    """As it left."""
    left_from_ms: int
    """It was carried out between these two, or never."""
    left_until_ms: int


@dataclass(frozen=True)
class Query:
    """A call that tells something. ``payload`` is JSON."""

    endpoint: str
    payload: bytes
    shape: type[Any]
    accepts: frozenset[int] = frozenset()
    """Errcodes that are an answer, too: what was asked about is not there."""


@dataclass(frozen=True)
class Made:
    """It was carried out. ``items``: the people or groups WeCom's record names; None when it names none."""

    message_id: str = ""
    items: frozenset[str] | None = None


@dataclass(frozen=True)
class NotMade:
    """It was not carried out."""


Finding = Made | NotMade
Search = Generator[Query, Any, Finding]
Known = Callable[[str], bool]
"""Of a platform's id: another of our calls made it."""


class NotYet(Exception):
    """What WeCom shows now proves neither; look again later."""


# ---- the shapes of answers: what a search rests on must be there, and of the right type


class _Text(msgspec.Struct):
    content: str = ""


class _Message(msgspec.Struct):
    msgid: str
    create_time: int
    creator: str = ""
    text: _Text | None = None
    attachments: list[dict[str, Any]] = []


class _Messages(msgspec.Struct):
    group_msg_list: list[_Message]
    next_cursor: str = ""


class _Task(msgspec.Struct):
    userid: str
    status: int = 0


class _Tasks(msgspec.Struct):
    task_list: list[_Task]
    next_cursor: str = ""


class _Row(msgspec.Struct):
    status: int
    external_userid: str = ""
    chat_id: str = ""


class _Rows(msgspec.Struct):
    send_list: list[_Row]
    next_cursor: str = ""


class _Moment(msgspec.Struct):
    moment_id: str
    creator: str = ""
    text: _Text | None = None
    image: list[dict[str, Any]] = []
    video: dict[str, Any] | None = None
    link: dict[str, Any] | None = None


class _Moments(msgspec.Struct):
    moment_list: list[_Moment]
    next_cursor: str = ""


class _Publisher(msgspec.Struct):
    userid: str


class _Publishers(msgspec.Struct):
    task_list: list[_Publisher]
    next_cursor: str = ""


class _WayId(msgspec.Struct):
    config_id: str


class _WayIds(msgspec.Struct):
    contact_way: list[_WayId]
    next_cursor: str = ""


class _WayBody(msgspec.Struct):
    type: int = 0
    scene: int = 0
    remark: str = ""
    state: str = ""
    user: list[str] = []
    party: list[int] = []


class _Way(msgspec.Struct):
    contact_way: _WayBody | None = None
    errcode: int = 0


class _Tag(msgspec.Struct):
    name: str
    deleted: bool = False


class _TagGroup(msgspec.Struct):
    group_id: str
    group_name: str
    tag: list[_Tag] = []
    deleted: bool = False


class _TagGroups(msgspec.Struct):
    tag_group: list[_TagGroup]


class _Transfer(msgspec.Struct):
    external_userid: str
    status: int
    takeover_time: int = 0


class _Transfers(msgspec.Struct):
    customer: list[_Transfer]
    next_cursor: str = ""


class _Chat(msgspec.Struct):
    owner: str = ""


class _ChatBody(msgspec.Struct):
    group_chat: _Chat | None = None
    errcode: int = 0


# ---- the searches


def _message(doubt: Doubt, slack_ms: int, known: Known) -> Search:
    """A mass message: same kind and content, made by an app in the time of the call, not another call's, and for
    people of ours only (fact sheet 3.4). Messages of equal content are told apart by their people."""
    wanted = doubt.payload
    group = wanted.get("chat_type") == "group"
    ours = frozenset(wanted.get("chat_id_list" if group else "external_userid") or ())
    window = {"chat_type": "group" if group else "single", "filter_type": 0, "limit": 100, **_window(doubt, slack_ms)}
    messages: list[_Message] = []
    cursor = ""
    while True:
        page = yield _query("get_groupmsg_list_v2", {**window, "cursor": cursor}, _Messages)
        messages += page.group_msg_list
        cursor = page.next_cursor
        if not cursor:
            break
    undecided = False
    for message in messages:
        if message.creator or known(message.msgid) or not _same_content(wanted, message):
            continue
        found = yield from _recipients(message.msgid, ours, str(wanted.get("sender") or ""), group)
        if found is None:
            continue
        if not found and not group:
            # Nobody at all: WeCom has not filled it in yet, and it may be ours.
            undecided = True
            continue
        if known(message.msgid):
            continue  # another call of equal content and people has found it meanwhile
        return Made(message.msgid, None if group else found)
    if undecided:
        raise NotYet
    return NotMade()


def _recipients(
    msgid: str, ours: frozenset[str], sender: str, group: bool
) -> Generator[Query, Any, frozenset[str] | None]:
    """Whom a message is for; None as soon as it is certainly not ours. Of groups only those that got it show."""
    senders: list[str] = []
    cursor = ""
    while True:
        page = yield _query("get_groupmsg_task", {"msgid": msgid, "limit": 1000, "cursor": cursor}, _Tasks)
        senders += [task.userid for task in page.task_list]
        cursor = page.next_cursor
        if not cursor:
            break
    # WeCom writes member ids in lower case in places, and they are case-insensitive.
    if sender and any(userid.lower() != sender.lower() for userid in senders):
        return None
    found: set[str] = set()
    for userid in senders:
        while True:
            asked = {"msgid": msgid, "userid": userid, "limit": 1000, "cursor": cursor}
            rows = yield _query("get_groupmsg_send_result", asked, _Rows)
            found.update(row.chat_id if group else row.external_userid for row in rows.send_list)
            if not found <= ours:
                return None
            cursor = rows.next_cursor
            if not cursor:
                break
    if group and not senders:
        raise NotYet
    return frozenset(found)


def _same_content(wanted: Mapping[str, Any], message: _Message) -> bool:
    ours, theirs = list(wanted.get("attachments") or ()), message.attachments
    return (
        _same_text(wanted, message.text)
        and len(ours) == len(theirs)
        and all(_same_attachment(one, other) for one, other in zip(ours, theirs, strict=True))
    )


def _same_text(wanted: Mapping[str, Any], listed: _Text | None) -> bool:
    """Equal but for what a platform may tidy up: a message that is not recognised would be sent again."""
    text = wanted.get("text")
    content = text.get("content") or "" if isinstance(text, dict) else ""
    return _tidy(content) == _tidy(listed.content if listed else "")


def _tidy(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def _same_attachment(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """The same kind, and nothing that both name differs. Media ids and picture addresses come back as others."""
    kind = ours.get("msgtype")
    if kind != theirs.get("msgtype"):
        return False
    one, other = ours.get(str(kind)), theirs.get(str(kind))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return True
    pairs = [(one.get(name), other.get(name)) for name in ("title", "url", "appid", "page")]
    return all(_tidy(str(mine)) == _tidy(str(its)) for mine, its in pairs if mine and its)


def _moment(doubt: Doubt, slack_ms: int, known: Known) -> Search:
    """A moment: same text and kinds of attachments, made by an app in the time of the call, for our members only
    (fact sheet 3.5)."""
    cursor = ""
    moments: list[_Moment] = []
    while True:
        asked = {"filter_type": 0, "limit": 20, "cursor": cursor, **_window(doubt, slack_ms)}
        page = yield _query("get_moment_list", asked, _Moments)
        moments += page.moment_list
        cursor = page.next_cursor
        if not cursor:
            break
    visible = doubt.payload.get("visible_range") or {}
    senders = visible.get("sender_list") or {} if isinstance(visible, dict) else {}
    named = {str(user).lower() for user in senders.get("user_list") or ()} if isinstance(senders, dict) else set()
    for moment in moments:
        if moment.creator or known(moment.moment_id) or not _same_moment(doubt.payload, moment):
            continue
        if named and not senders.get("department_list"):
            publishers: set[str] = set()
            while True:
                asked = {"moment_id": moment.moment_id, "limit": 1000, "cursor": cursor}
                tasks = yield _query("get_moment_task", asked, _Publishers)
                publishers.update(task.userid.lower() for task in tasks.task_list)
                cursor = tasks.next_cursor
                if not cursor:
                    break
            if not publishers:
                raise NotYet
            if not publishers <= named:
                continue
        if known(moment.moment_id):
            continue
        return Made(moment.moment_id)
    return NotMade()


def _same_moment(wanted: Mapping[str, Any], moment: _Moment) -> bool:
    if not _same_text(wanted, moment.text):
        return False
    kinds = [str(a.get("msgtype")) for a in wanted.get("attachments") or () if isinstance(a, dict)]
    listed = ["image"] * len(moment.image) + ["video"] * bool(moment.video) + ["link"] * bool(moment.link)
    return sorted(kinds) == sorted(listed)


def _contact_way(doubt: Doubt, slack_ms: int, known: Known) -> Search:
    """A contact way: made in the time of the call, with the same type, scene, state, remark and members (3.3)."""
    wanted = doubt.payload
    if wanted.get("is_temp"):
        raise NotYet  # temporary ways are not listed
    cursor = ""
    ids: list[str] = []
    while True:
        asked = {"limit": 1000, "cursor": cursor, **_window(doubt, slack_ms)}
        page = yield _query("list_contact_way", asked, _WayIds)
        ids += [way.config_id for way in page.contact_way]
        cursor = page.next_cursor
        if not cursor:
            break
    for config_id in ids:
        if known(config_id):
            continue
        answer = yield _query("get_contact_way", {"config_id": config_id}, _Way, frozenset({41039}))
        way = answer.contact_way
        if way is None and answer.errcode == 0:
            raise NotYet
        mine = way is not None and _way_essence(msgspec.to_builtins(way)) == _way_essence(wanted)
        if mine and not known(config_id):
            return Made(config_id)
    return NotMade()


def _way_essence(way: Mapping[str, Any]) -> tuple[object, ...]:
    users = tuple(sorted(str(user).lower() for user in way.get("user") or ()))
    parties = tuple(sorted(str(party) for party in way.get("party") or ()))
    texts = (str(way.get("state") or ""), str(way.get("remark") or ""))
    return (way.get("type"), way.get("scene"), *texts, users, parties)


def _tags(doubt: Doubt, slack_ms: int, known: Known) -> Search:
    """Corp tags: the group has all the names. It is what was wanted, whoever made them (3.3)."""
    wanted = doubt.payload
    group_id, group_name = wanted.get("group_id"), wanted.get("group_name")
    names = {str(tag.get("name")) for tag in wanted.get("tag") or () if isinstance(tag, dict)}
    groups = yield _query("get_corp_tag_list", {"group_id": [group_id]} if group_id else {}, _TagGroups)
    for group in groups.tag_group:
        mine = group.group_id == group_id if group_id else group.group_name == group_name
        if mine and not group.deleted and names <= {tag.name for tag in group.tag if not tag.deleted}:
            return Made(group.group_id)
    return NotMade()


def _transfer(path: str) -> Callable[[Doubt, int, Known], Search]:
    def search(doubt: Doubt, slack_ms: int, known: Known) -> Search:
        """Customers handed over: those who wait for it or have been taken over since the call (3.6). Refusals carry no
        time and may be of an earlier transfer, so they prove nothing."""
        pair = {name: doubt.payload.get(name) for name in ("handover_userid", "takeover_userid")}
        ours = {str(customer) for customer in doubt.payload.get("external_userid") or ()}
        found: set[str] = set()
        cursor = ""
        while True:
            page = yield _query(path, {**pair, "cursor": cursor}, _Transfers)
            for item in page.customer:
                recent = item.takeover_time * 1000 >= doubt.left_from_ms - slack_ms
                if item.external_userid in ours and item.status in (1, 2) and recent:
                    found.add(item.external_userid)
            cursor = page.next_cursor
            if not cursor:
                break
        return Made(items=frozenset(found)) if found else NotMade()

    return search


def _groups(doubt: Doubt, slack_ms: int, known: Known) -> Search:
    """Groups handed over: those that the new owner owns (3.6, 3.7)."""
    owner = str(doubt.payload.get("new_owner") or "").lower()
    found: set[str] = set()
    for chat_id in doubt.payload.get("chat_id_list") or ():
        gone = frozenset({49008, 90501})
        answer = yield _query("groupchat/get", {"chat_id": chat_id, "need_name": 0}, _ChatBody, gone)
        if answer.group_chat is None and answer.errcode == 0:
            raise NotYet
        if answer.group_chat is not None and answer.group_chat.owner.lower() == owner:
            found.add(str(chat_id))
    return Made(items=frozenset(found)) if found else NotMade()


SEARCHES: Mapping[str, Callable[[Doubt, int, Known], Search]] = {
    _EXTERNAL + "add_msg_template": _message,
    _EXTERNAL + "add_moment_task": _moment,
    _EXTERNAL + "add_contact_way": _contact_way,
    _EXTERNAL + "add_corp_tag": _tags,
    _EXTERNAL + "transfer_customer": _transfer("transfer_result"),
    _EXTERNAL + "resigned/transfer_customer": _transfer("resigned/transfer_result"),
    _EXTERNAL + "groupchat/transfer": _groups,
    _EXTERNAL + "groupchat/onjob_transfer": _groups,
}
"""How it is found out, by endpoint. Every query is in the endpoint's own group, so one shard asks and sends."""


def _query(name: str, asked: Mapping[str, Any], shape: type[Any], accepts: frozenset[int] = frozenset()) -> Query:
    payload = {field: value for field, value in asked.items() if value != ""}
    return Query(_EXTERNAL + name, msgspec.json.encode(payload), shape, accepts)


def _window(doubt: Doubt, slack_ms: int) -> dict[str, int]:
    """Epoch seconds, both included."""
    start_s = max(0, doubt.left_from_ms - slack_ms) // 1000
    return {"start_time": start_s, "end_time": -(-(doubt.left_until_ms + slack_ms) // 1000)}


# ---- asking

_UNSEARCHABLE = (AttributeError, KeyError, TypeError, ValueError)
"""Fields of a payload that have the wrong type: WeCom took it or did not, and only a person can tell."""


class Settling:
    """Asks until it is known what became of a call, or the horizon passes."""

    __slots__ = (
        "_asked_ms",
        "_begun_ms",
        "_doubt",
        "_known",
        "_out",
        "_query",
        "_search",
        "_times",
        "_tries",
        "due_ms",
    )

    def __init__(self, doubt: Doubt, times: SettleTimes, known: Known, now_ms: int) -> None:
        self._doubt, self._times, self._known = doubt, times, known
        self._search: Search | None = None
        self._query: Query | None = None
        self._begun_ms = 0
        self._tries = 0
        self.due_ms = now_ms if doubt.endpoint in SEARCHES else self.horizon_ms
        """When to look at it again (business time)."""

    @property
    def horizon_ms(self) -> int:
        """When nobody can tell any more."""
        return self._doubt.left_until_ms + self._times.horizon_ms

    def query(self, now_ms: int) -> Query | None:
        """What should be asked now."""
        if self._doubt.endpoint not in SEARCHES or now_ms < self.due_ms:
            return None
        if self._query is None:
            self._begin(now_ms)
        return self._query

    def asking(self, now_ms: int) -> None:
        """The query goes out. A listing is as young as its first query."""
        if not self._begun_ms:
            self._begun_ms = now_ms

    def hear(self, result: Result, table: ErrorTable, now_ms: int, jitter: float) -> tuple[Finding | None, Verdict]:
        """What an answer to the query says: None, nothing yet."""
        query = self._query
        if query is None:
            return None, Verdict()
        if not isinstance(result, Answer):
            self._again(now_ms, jitter, whole=not isinstance(result, NotSent | Unknown))
            return None, Verdict()
        if result.errcode and result.errcode not in query.accepts:
            verdict, delay_ms = judged(result.errcode, query.endpoint, table, jitter)
            if delay_ms is None:
                self._again(now_ms, jitter, whole=True)
            else:
                self.due_ms = now_ms + delay_ms
            return None, verdict
        self._tries = 0
        try:
            finding = self._step(msgspec.json.decode(result.body, type=query.shape))
        except (msgspec.MsgspecError, NotYet):
            self._again(now_ms, jitter, whole=True)
            return None, Verdict()
        except _UNSEARCHABLE:
            self._restart(self.horizon_ms)
            return None, Verdict()
        if isinstance(finding, NotMade) and self._begun_ms < self.visible_ms:
            self._restart(max(self.visible_ms, now_ms + 1))
            return None, Verdict()
        return finding, Verdict()

    @property
    def visible_ms(self) -> int:
        """From then on "not listed" means "not made"."""
        return self._doubt.left_until_ms + self._times.visible_after_ms

    def _begin(self, now_ms: int) -> None:
        # As wide as it can be: a clock that differs more than expected must not hide what was made.
        doubt = replace(self._doubt, left_until_ms=max(self._doubt.left_until_ms, now_ms))
        self._search = SEARCHES[doubt.endpoint](doubt, self._times.slack_ms, self._known)
        try:
            self._query = next(self._search)
        except NotYet:
            self._restart(self.horizon_ms)
        except (StopIteration, *_UNSEARCHABLE):
            self._restart(self.horizon_ms)

    def _step(self, answer: Any) -> Finding | None:
        assert self._search is not None
        try:
            self._query = self._search.send(answer)
        except StopIteration as end:
            finding: Finding = end.value
            return finding
        return None

    def _again(self, now_ms: int, jitter: float, *, whole: bool) -> None:
        self._tries += 1
        if whole:
            self._restart(now_ms + self._times.every_ms)
        else:
            self.due_ms = now_ms + domain.silence_ms(self._tries, jitter)

    def _restart(self, due_ms: int) -> None:
        self._search = self._query = None
        self._begun_ms = 0
        self.due_ms = due_ms


def judged(errcode: int, endpoint: str, table: ErrorTable, jitter: float) -> tuple[Verdict, int | None]:
    """What an error answer to a read means: for others, and after how many ms the same is asked again (None: this
    question has no answer)."""
    rule = table.rule(errcode, endpoint)
    match rule.action:
        case "token":
            # A second or so: a token that is refused again and again must not be renewed in a loop.
            return Verdict(renew_token=True, errcode=errcode), domain.silence_ms(3, jitter)
        case "wait":
            return Verdict(freeze=True, freeze_ms=rule.wait_ms, errcode=errcode), 0
        case "slow":
            delay_ms = rule.delay_ms + int(jitter * (rule.delay_max_ms - rule.delay_ms))
            return Verdict(slow=True, errcode=errcode), delay_ms
        case "retry":
            return Verdict(errcode=errcode), rule.delay_ms
        case _:
            return Verdict(errcode=errcode), None
