"""Mass messages to customers and groups (企业群发, fact sheet 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.platform import fields
from simulator.platform.api.welcome import check_message
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.days import DAY_S
from simulator.world.mass import SENT, ChatType, MassBook, MassMessage, Task
from simulator.world.notes import Notes
from simulator.world.people import ACTIVE, LEFT
from simulator.world.scale import Scale
from simulator.world.tags import TagBook

API = Api()
ALWAYS = (MassBook,)

_MONTH_S = 31 * DAY_S
_LIST_PAGE, _LIST_DEFAULT = 100, 50
_PAGE, _PAGE_DEFAULT = 1_000, 500

_Tasks = dict[str, list[str]]


@API.post("externalcontact/add_msg_template", fail_list=[], msgid="")
def add_msg_template(call: Call) -> Answer:
    """Makes tasks for staff; nothing is sent until they confirm.

    Single: customers named, of the sender or of whoever interacted with each last; else all of the sender's, those with
    the tags if there is a filter. Group: the sender's groups, all or those named. ``fail_list`` has those who cannot be
    sent to; when that is everybody, 41048. A customer who deleted us is not among them: staff still have the contact,
    and sending ends as status 2. The platform documents nothing of a call without customers and sender: here 40058.
    """
    chat_type = _chat_type(call.body, default="single")
    text = check_message(call, call.body)
    sender = fields.text(call.body, "sender", required=chat_type == "group")
    if sender:
        _check_sender(call, sender)
    if call.corp.of(Scale).over(call.now_s):
        raise ApiError(610023)
    tasks, failed = _groups(call, sender) if chat_type == "group" else _customers(call, sender)
    if not tasks:
        raise ApiError(41048, empties={"fail_list": failed})
    message = call.corp.of(MassBook).create(
        chat_type,
        tasks,
        text=text,
        attachments=fields.objects(call.body, "attachments"),
        allow_select=chat_type == "single" and fields.flag(call.body, "allow_select"),
        now_s=call.now_s,
    )
    return {"fail_list": failed, "msgid": message.msgid}


def _check_sender(call: Call, sender: str) -> None:
    member = call.corp.people.staff.get(sender)
    if member is None or member.status == LEFT:
        raise ApiError(40003)
    if member.status != ACTIVE:
        raise ApiError(41054)


def _customers(call: Call, sender: str) -> tuple[_Tasks, list[str]]:
    """Customers by staff member, and those who cannot be sent to."""
    book, relations = call.corp.of(MassBook), call.corp.relations
    named = fields.texts(call.body, "external_userid", most=book.rules.customers_a_call)
    groups = _tag_groups(call)
    tasks: _Tasks = {}
    if not named:
        if not sender:
            raise ApiError(40058)
        customers = relations.customers_of(sender)
        if groups:
            notes = call.corp.of(Notes)
            customers = [c for c in customers if _fits(notes.get(sender, c).tags, groups)]
        return ({sender: customers} if customers else {}), []
    failed = []
    for customer in named:
        if customer not in call.corp.people.known:
            failed.append(customer)
            continue
        staff_id = sender or book.last_talked(customer)
        pair = relations.get(staff_id, customer) if staff_id else None
        if pair is None or not pair.staff_side:
            failed.append(customer)
        else:
            tasks.setdefault(staff_id, []).append(customer)
    return tasks, failed


def _tag_groups(call: Call) -> list[frozenset[str]]:
    """The filter: one tag of every group. Ids that are no tag of the corp: 40068."""
    book, found = call.corp.of(MassBook), []
    tags = call.corp.of(TagBook)
    for group in fields.objects(fields.obj(call.body, "tag_filter"), "group_list"):
        wanted = fields.texts(group, "tag_list", required=True, most=book.rules.tags_a_group)
        if any(tags.tag(tag_id) is None for tag_id in wanted):
            raise ApiError(40068)
        found.append(frozenset(wanted))
    return found


def _fits(has: Mapping[str, None], groups: Sequence[frozenset[str]]) -> bool:
    return all(not group.isdisjoint(has) for group in groups)


def _groups(call: Call, sender: str) -> tuple[_Tasks, list[str]]:
    """The sender's groups, and those named that are not theirs."""
    book = call.corp.of(MassBook)
    named = fields.texts(call.body, "chat_id_list", most=book.rules.groups_a_call)
    own = book.chats_of(sender)
    wanted = [chat_id for chat_id in named if chat_id in own] if named else list(own)
    return ({sender: wanted} if wanted else {}), [chat_id for chat_id in named if chat_id not in own]


@API.post("externalcontact/get_groupmsg_list_v2", group_msg_list=[])
def get_groupmsg_list_v2(call: Call) -> Answer:
    """Messages of at most a month, the corp's (0), those that staff made themselves (1), or both (2), oldest first."""
    chat_type = _chat_type(call.body)
    start_s, end_s = fields.whole(call.body, "start_time", least=0), fields.whole(call.body, "end_time", least=0)
    if not 0 <= end_s - start_s <= _MONTH_S:
        raise ApiError(40035)
    creator = fields.text(call.body, "creator")
    kind = fields.whole(call.body, "filter_type", default=2, least=0, most=2)
    limit = fields.clipped(call.body, "limit", default=_LIST_DEFAULT, most=_LIST_PAGE)
    if creator and creator not in call.corp.people.staff:
        raise ApiError(40003)
    found = [
        message
        for message in call.corp.of(MassBook).between(start_s, end_s)
        if message.chat_type == chat_type
        and (kind == 2 or bool(message.creator) == (kind == 1))
        and (not creator or message.creator == creator)
    ]
    scope = f"groupmsg|{chat_type}|{start_s}|{end_s}|{creator}|{kind}"
    shown, cursor = call.page(scope, found, fields.text(call.body, "cursor"), limit)
    return {"group_msg_list": [_message(message) for message in shown], "next_cursor": cursor}


@API.post("externalcontact/get_groupmsg_task", task_list=[])
def get_groupmsg_task(call: Call) -> Answer:
    """Who has confirmed, and when; 41063 while the tasks are under way. Those of a cancelled message stay readable."""
    message = _of_msgid(call)
    limit = fields.clipped(call.body, "limit", default=_PAGE_DEFAULT, most=_PAGE)
    if call.now_s < message.ready_s:
        raise ApiError(41063)
    cursor = fields.text(call.body, "cursor")
    shown, cursor = call.page(f"groupmsg_task|{message.msgid}", list(message.tasks.values()), cursor, limit)
    return {"task_list": [_task(task) for task in shown], "next_cursor": cursor}


@API.post("externalcontact/get_groupmsg_send_result", send_list=[])
def get_groupmsg_send_result(call: Call) -> Answer:
    """What became of one staff member's customers; of groups only those that were sent to."""
    message = _of_msgid(call)
    userid = fields.text(call.body, "userid", required=True)
    limit = fields.clipped(call.body, "limit", default=_PAGE_DEFAULT, most=_PAGE)
    task = message.tasks.get(userid)
    if task is None:
        raise ApiError(40003)
    if call.now_s < message.ready_s:
        raise ApiError(41063)
    rows = list(zip(task.targets, task.statuses or bytes(len(task.targets)), strict=True))
    if message.chat_type == "group":
        rows = [row for row in rows if row[1] == SENT]
    cursor = fields.text(call.body, "cursor")
    shown, cursor = call.page(f"send_result|{message.msgid}|{userid}", rows, cursor, limit)
    name = "external_userid" if message.chat_type == "single" else "chat_id"
    return {"send_list": [_result(task, name, target, status) for target, status in shown], "next_cursor": cursor}


@API.post("externalcontact/remind_groupmsg_send")
def remind_groupmsg_send(call: Call) -> Answer:
    """Reminds whoever has not confirmed, three times in 24 hours; some then do."""
    message = _made_by_corp(call)
    if call.now_s < message.ready_s:
        raise ApiError(41063)
    if not call.corp.of(MassBook).remind(message, call.now_s):
        raise ApiError(41094)
    return {}


@API.post("externalcontact/cancel_groupmsg_send")
def cancel_groupmsg_send(call: Call) -> Answer:
    """Whoever has not confirmed cannot any more; what was sent stays sent. Once: then 41093."""
    _made_by_corp(call).cancelled = True
    return {}


def _chat_type(body: fields.Body, default: ChatType | None = None) -> ChatType:
    match fields.text(body, "chat_type", required=default is None):
        case "group":
            return "group"
        case "single":
            return "single"
        case "" if default is not None:
            return default
    raise ApiError(40035)


def _of_msgid(call: Call) -> MassMessage:
    msgid = fields.text(call.body, "msgid", required=True, missing=41046)
    message = call.corp.of(MassBook).messages.get(msgid)
    if message is None:
        raise ApiError(41047)
    return message


def _made_by_corp(call: Call) -> MassMessage:
    """A message an app may still do something about; what staff made themselves is theirs (41047)."""
    message = _of_msgid(call)
    if message.creator:
        raise ApiError(41047)
    if message.cancelled:
        raise ApiError(41093)
    return message


def _message(message: MassMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "msgid": message.msgid,
        "create_time": message.created_s,
        "create_type": 1 if message.creator else 0,
        "text": {"content": message.text},
        "attachments": message.attachments,
    }
    if message.creator:
        shown["creator"] = message.creator
    return shown


def _task(task: Task) -> dict[str, Any]:
    if task.sent_s:
        return {"userid": task.userid, "status": 2, "send_time": task.sent_s}
    return {"userid": task.userid, "status": 0}


def _result(task: Task, name: str, target: str, status: int) -> dict[str, Any]:
    row = {name: target, "userid": task.userid, "status": status}
    if status == SENT:
        row["send_time"] = task.sent_s
    return row
