"""微信客服 (fact sheet 3.11): accounts, servicers, conversations, messages, statistics.

Where the sheet names no code: an unknown customer is 40096, a msgtype that cannot be sent 40035, a text too long 45002.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from simulator.platform import fields
from simulator.platform.api.welcome import check_media, check_words
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import TEXTS, ApiError
from simulator.world.days import DAY_S, day_start
from simulator.world.kf import KfDesk
from simulator.world.kf_records import HUMAN, Account, Session, Tally
from simulator.world.media import MESSAGE
from simulator.world.people import LEFT

API = Api()

_WORD = re.compile(r"[0-9a-zA-Z_-]*")
_MSGID_CHARS = 32
# A cursor of sync_msg is kept for ever by those who sync: it never grows too old, only what it points at does.
_CURSOR_S = 10 * 365 * DAY_S
_URL_BYTES = 2_048
_MENU_ITEMS = 10

_Check = Callable[[Call, dict[str, Any]], None]


def _desk(call: Call) -> KfDesk:
    return call.corp.of(KfDesk)


def _account(call: Call) -> Account:
    return _desk(call).account(fields.text(call.body, "open_kfid", required=True))


def _customer(call: Call, name: str) -> str:
    customer_id = fields.text(call.body, name, required=True)
    if customer_id not in call.corp.people.known:
        raise ApiError(40096)
    return customer_id


# Accounts


@API.post("kf/account/add")
def add_account(call: Call) -> Answer:
    """A new account; ``name`` and ``media_id`` are needed."""
    desk = _desk(call)
    name = fields.text(call.body, "name", required=True, max_chars=desk.rules.name_chars)
    media_id = fields.text(call.body, "media_id", required=True)
    check_media(call, media_id, "image", MESSAGE)
    return {"open_kfid": desk.open_account(name, media_id).open_kfid}


@API.post("kf/account/del")
def del_account(call: Call) -> Answer:
    """Deletes an account; its conversations end."""
    _desk(call).close_account(_account(call))
    return {}


@API.post("kf/account/update")
def update_account(call: Call) -> Answer:
    """Changes name or picture, whichever is given."""
    desk, account = _desk(call), _account(call)
    name = fields.text(call.body, "name", max_chars=desk.rules.name_chars)
    media_id = fields.text(call.body, "media_id")
    if media_id:
        check_media(call, media_id, "image", MESSAGE)
        desk.picture(account, media_id)
    account.name = name or account.name
    return {}


@API.post("kf/account/list", account_list=[])
def list_accounts(call: Call) -> Answer:
    """Accounts in the order they were opened; ``limit`` 1 to 100, default 100."""
    desk = _desk(call)
    offset = fields.whole(call.body, "offset", default=0, least=0)
    limit = fields.whole(call.body, "limit", default=desk.rules.accounts_page, least=1, most=desk.rules.accounts_page)
    there = [account for account in desk.accounts.values() if not account.deleted]
    return {
        "account_list": [
            {
                "open_kfid": account.open_kfid,
                "name": account.name,
                "avatar": account.avatar,
                "manage_privilege": account.managed,
            }
            for account in there[offset : offset + limit]
        ]
    }


@API.post("kf/add_contact_way")
def add_contact_way(call: Call) -> Answer:
    """The account's link; ``scene`` (at most 32 bytes of ``[0-9a-zA-Z_-]``) comes back in enter_session."""
    desk, account = _desk(call), _account(call)
    scene = fields.text(call.body, "scene", max_bytes=desk.rules.scene_bytes)
    if not _WORD.fullmatch(scene):
        raise ApiError(40035)
    return {"url": desk.way(account, scene)}


# Servicers


@API.post("kf/servicer/add", result_list=[])
def add_servicers(call: Call) -> Answer:
    """Members and departments, each with an errcode of its own; who serves already is fine."""
    desk, account = _desk(call), _account(call)
    staff_ids, departments = _servicers_asked(call, desk)
    results = []
    for staff_id in staff_ids:
        member = call.corp.people.staff.get(staff_id)
        errcode = 0
        if member is None or member.status == LEFT:
            errcode = 60111
        elif staff_id not in account.servicers and len(account.servicers) >= desk.rules.servicers:
            errcode = 45024
        else:
            account.servicers[staff_id] = None
        results.append({"userid": staff_id, **_result(errcode)})
    for department in departments:
        errcode = 0
        if department not in call.corp.people.departments:
            errcode = 60123
        elif department not in account.departments and len(account.departments) >= desk.rules.departments:
            errcode = 45024
        else:
            account.departments[department] = None
        results.append({"department_id": department, **_result(errcode)})
    return {"result_list": results}


@API.post("kf/servicer/del", result_list=[])
def del_servicers(call: Call) -> Answer:
    """The reverse; 95014 for whoever was not on the list."""
    desk, account = _desk(call), _account(call)
    staff_ids, departments = _servicers_asked(call, desk)
    serving = {
        session.servicer
        for session in desk.sessions.values()
        if session.open_kfid == account.open_kfid and session.servicer
    }
    results: list[dict[str, Any]] = []
    for staff_id in staff_ids:
        was = staff_id in account.servicers
        account.servicers.pop(staff_id, None)
        results.append({"userid": staff_id, **_result(0 if was else 95014)})
    for department in departments:
        was = department in account.departments
        account.departments.pop(department, None)
        results.append({"department_id": department, **_result(0 if was else 95014)})
    desk.dismiss(account, {*staff_ids, *serving}, call.now_s)
    return {"result_list": results}


def _servicers_asked(call: Call, desk: KfDesk) -> tuple[list[str], list[int]]:
    staff_ids = fields.texts(call.body, "userid_list", most=desk.rules.servicers_a_call)
    departments = list(dict.fromkeys(fields.wholes(call.body, "department_id_list", most=desk.rules.departments)))
    if not staff_ids and not departments:
        raise ApiError(40058)
    return staff_ids, departments


def _result(errcode: int) -> dict[str, Any]:
    return {"errcode": errcode, "errmsg": "success" if not errcode else TEXTS[errcode]}


@API.get("kf/servicer/list", servicer_list=[])
def list_servicers(call: Call) -> Answer:
    """Members with their status (0 receiving, 1 not, then with stop_type), and departments."""
    open_kfid = call.query.get("open_kfid", "")
    if not open_kfid:
        raise ApiError(40058)
    account = _desk(call).account(open_kfid)
    rows: list[dict[str, Any]] = []
    for staff_id in account.servicers:
        stop_type = account.off_duty.get(staff_id)
        row: dict[str, Any] = {"userid": staff_id, "status": 0 if stop_type is None else 1}
        if stop_type is not None:
            row["stop_type"] = stop_type
        rows.append(row)
    rows += [{"department_id": department} for department in account.departments]
    return {"servicer_list": rows}


# Conversations


def _session_record(call: Call) -> str:
    return f"kf|{call.body.get('open_kfid')}|{call.body.get('external_userid')}"


@API.post("kf/service_state/get")
def get_state(call: Call) -> Answer:
    """0 new, 1 bot, 2 queue, 3 human, 4 ended or not begun; the servicer with 3 only."""
    account, customer_id = _account(call), _customer(call, "external_userid")
    session = _desk(call).peek(account.open_kfid, customer_id) or Session(account.open_kfid, customer_id)
    answer: Answer = {"service_state": session.state}
    if session.state == HUMAN:
        answer["servicer_userid"] = session.servicer
    return answer


@API.post("kf/service_state/trans", record=_session_record)
def change_state(call: Call) -> Answer:
    """Moves a conversation; ``msg_code`` where a message in answer is allowed."""
    account, customer_id = _account(call), _customer(call, "external_userid")
    state = fields.whole(call.body, "service_state", least=0, most=4)
    staff_id = fields.text(call.body, "servicer_userid", required=state == HUMAN)
    code = _desk(call).transfer(account, customer_id, state, staff_id, call.now_s)
    return {"msg_code": code} if code else {}


# Messages


@API.post("kf/sync_msg", msg_list=[])
def sync_messages(call: Call) -> Answer:
    """What customers and servicers wrote and what happened, three days back; ``limit`` is cut down to 1000.

    What the API sent takes its place in a page and is left out of it, so ``msg_list`` may be empty while ``has_more``
    is 1. A deleted account can still be read. The cursor belongs to the account and never grows too old.
    """
    desk, body = _desk(call), call.body
    account = desk.account(fields.text(body, "open_kfid", required=True), also_deleted=True)
    token, cursor = fields.text(body, "token"), fields.text(body, "cursor")
    limit = fields.clipped(body, "limit", default=desk.rules.page, most=desk.rules.page)
    fields.whole(body, "voice_format", default=0, least=0, most=1)
    scope = f"kf|{account.open_kfid}"
    position = call.read_cursor(scope, cursor) if cursor else 0
    if token:
        desk.check_token(token, account.open_kfid, call.now_s)
    else:
        desk.count_untokened(call.clock_s)
    rows, position, more = desk.read(account, position, limit, call.now_s)
    return {
        "next_cursor": call.write_cursor(scope, position, ttl_s=_CURSOR_S),
        "has_more": int(more),
        "msg_list": rows,
    }


@API.post("kf/send_msg")
def send_message(call: Call) -> Answer:
    """A message to a customer who wrote within 48 h, in state 0 or 1, at most five until they write again.

    Success says that it was taken; whether it arrived says the absence of a msg_send_fail.
    """
    account, customer_id = _account(call), _customer(call, "touser")
    msgid = _own_msgid(call)
    kind, content = _content(call, _SENDABLE)
    return {"msgid": _desk(call).send(account.open_kfid, customer_id, call.now_s, msgid, kind, content)}


@API.post("kf/send_msg_on_event")
def send_message_on_event(call: Call) -> Answer:
    """One text or menu for the code of an event: 20 s after entering or the end, 48 h after queueing or being taken.

    A code that is too old is 95002, one that is unknown or used 40035 (the sheet names neither).
    """
    desk = _desk(call)
    code = fields.text(call.body, "code", required=True)
    msgid = _own_msgid(call)
    kind, content = _content(call, ("text", "msgmenu"))
    desk.account(desk.code(code, call.now_s).open_kfid)
    return {"msgid": desk.send_on_event(code, call.now_s, msgid, kind, content)}


def _own_msgid(call: Call) -> str:
    msgid = fields.text(call.body, "msgid", max_chars=_MSGID_CHARS)
    if not _WORD.fullmatch(msgid):
        raise ApiError(40035)
    return msgid


def _content(call: Call, allowed: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    kind = fields.text(call.body, "msgtype", required=True)
    if kind not in allowed:
        raise ApiError(40035)
    content = fields.obj(call.body, kind, required=True)
    _CHECKS[kind](call, content)
    return kind, content


def _check_text(call: Call, content: dict[str, Any]) -> None:
    most = _desk(call).rules.text_bytes
    check_words(call, [fields.text(content, "content", required=True, max_bytes=most, too_long=45002)])
    fields.text(content, "menu_id")


def _check_file(kind: str) -> _Check:
    def check(call: Call, content: dict[str, Any]) -> None:
        check_media(call, fields.text(content, "media_id", required=True), kind, MESSAGE)

    return check


def _check_thumb(call: Call, content: dict[str, Any]) -> None:
    check_media(call, fields.text(content, "thumb_media_id", required=True), "image", MESSAGE)


def _check_link(call: Call, content: dict[str, Any]) -> None:
    fields.text(content, "title", required=True, max_bytes=128, too_long=45002)
    fields.text(content, "desc", max_bytes=512, too_long=45002)
    fields.text(content, "url", required=True, max_bytes=_URL_BYTES, too_long=45002)
    _check_thumb(call, content)


def _check_miniprogram(call: Call, content: dict[str, Any]) -> None:
    fields.text(content, "title", max_bytes=64, too_long=45002)
    fields.text(content, "appid", required=True)
    fields.text(content, "pagepath", required=True)
    _check_thumb(call, content)


def _check_location(_call: Call, content: dict[str, Any]) -> None:
    fields.text(content, "name")
    fields.text(content, "address")
    for name, most in (("latitude", 90), ("longitude", 180)):
        value = content.get(name)
        if value is None:
            raise ApiError(40058)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ApiError(40035, wrong_format=True)
        if not -most <= value <= most:
            raise ApiError(40035)


def _check_acquisition_link(_call: Call, content: dict[str, Any]) -> None:
    fields.text(content, "link_url", required=True, max_bytes=_URL_BYTES, too_long=45002)


def _check_menu(_call: Call, content: dict[str, Any]) -> None:
    fields.text(content, "head_content", max_bytes=1_024, too_long=45002)
    fields.text(content, "tail_content", max_bytes=1_024, too_long=45002)
    for item in fields.objects(content, "list", most=_MENU_ITEMS):
        kind = fields.text(item, "type", required=True)
        if kind not in _MENU_ITEMS_OF:
            raise ApiError(40035)
        inner = fields.obj(item, kind, required=True)
        for name, required, most in _MENU_ITEMS_OF[kind]:
            fields.text(inner, name, required=required, max_bytes=most, too_long=45002)


_MENU_ITEMS_OF: dict[str, tuple[tuple[str, bool, int], ...]] = {
    "click": (("id", False, 128), ("content", True, 128)),
    "view": (("url", True, _URL_BYTES), ("content", True, 1_024)),
    "miniprogram": (("appid", True, 32), ("pagepath", True, 1_024), ("content", True, 1_024)),
    "text": (("content", True, 256),),
}
_CHECKS: dict[str, _Check] = {
    "text": _check_text,
    "image": _check_file("image"),
    "voice": _check_file("voice"),
    "video": _check_file("video"),
    "file": _check_file("file"),
    "link": _check_link,
    "miniprogram": _check_miniprogram,
    "msgmenu": _check_menu,
    "location": _check_location,
    "ca_link": _check_acquisition_link,
}
_SENDABLE = tuple(_CHECKS)


# Customers and statistics


@API.post("kf/customer/batchget", customer_list=[], invalid_external_userid=[])
def get_customers(call: Call) -> Answer:
    """Who has been at an account; others are invalid. The context of the last entry, when asked for, of 48 h."""
    desk, people = _desk(call), call.corp.people
    asked = fields.texts(call.body, "external_userid_list", required=True, most=desk.rules.customers_a_call)
    with_context = fields.flag(call.body, "need_enter_session_context")
    found: list[dict[str, Any]] = []
    invalid = []
    for customer_id in asked:
        if customer_id not in people.known or not desk.knows(customer_id):
            invalid.append(customer_id)
            continue
        person = people.customer(customer_id)
        row: dict[str, Any] = {
            "external_userid": customer_id,
            "nickname": person.name,
            "avatar": person.avatar,
            "gender": person.gender,
            "unionid": person.unionid,
        }
        context = desk.last_context(customer_id, call.now_s) if with_context else None
        if context is not None:
            row["enter_session_context"] = {"scene": context.scene, "scene_param": context.scene_param}
            if context.wechat_channels:
                row["enter_session_context"]["wechat_channels"] = context.wechat_channels
        found.append(row)
    return {"customer_list": found, "invalid_external_userid": invalid}


@API.post("kf/get_corp_statistic", statistic_list=[])
def get_corp_statistic(call: Call) -> Answer:
    """A row a day, of one account or all; days on which nothing happened have no ``statistic``."""
    desk = _desk(call)
    days, open_kfid = _days(call, desk)
    rows = []
    for day_s in days:
        tally = desk.tally(day_s, open_kfid, "")
        row: dict[str, Any] = {"stat_time": day_s}
        if not tally.empty:
            row["statistic"] = {
                "session_cnt": tally.sessions,
                "customer_cnt": len(tally.customers),
                "customer_msg_cnt": tally.messages,
                "upgrade_service_customer_cnt": 0,
                "ai_session_reply_cnt": tally.bot_sessions,
                "msg_rejected_customer_cnt": len(tally.rejected),
            }
        rows.append(row)
    return {"statistic_list": rows}


@API.post("kf/get_servicer_statistic", statistic_list=[])
def get_servicer_statistic(call: Call) -> Answer:
    """The same for one servicer, or for all together."""
    desk = _desk(call)
    days, open_kfid = _days(call, desk)
    staff_id = fields.text(call.body, "servicer_userid")
    if staff_id and staff_id not in call.corp.people.staff:
        raise ApiError(60111)
    return {"statistic_list": [_servicer_row(day_s, desk.tally(day_s, open_kfid, staff_id or "*")) for day_s in days]}


def _servicer_row(day_s: int, tally: Tally) -> dict[str, Any]:
    row: dict[str, Any] = {"stat_time": day_s}
    if tally.empty:
        return row
    statistic: dict[str, Any] = {
        "session_cnt": tally.sessions,
        "customer_cnt": len(tally.customers),
        "customer_msg_cnt": tally.messages,
        "satisfaction_investgate_cnt": 0,
        "upgrade_service_customer_cnt": 0,
        "msg_rejected_customer_cnt": len(tally.rejected),
    }
    if tally.sessions:
        statistic["reply_rate"] = min(1.0, round(tally.replied / tally.sessions, 4))
    if tally.replied:
        statistic["first_reply_average_sec"] = round(tally.first_reply_s / tally.replied)
    row["statistic"] = statistic
    return row


def _days(call: Call, desk: KfDesk) -> tuple[range, str]:
    """Midnights of the days asked for that can be read yet, and the account."""
    rules = desk.rules
    open_kfid = fields.text(call.body, "open_kfid")
    if open_kfid:
        desk.account(open_kfid)
    begin_s, end_s = fields.whole(call.body, "start_time"), fields.whole(call.body, "end_time")
    today_s = day_start(call.now_s)
    if not today_s - rules.statistic_days * DAY_S <= begin_s <= end_s:
        raise ApiError(40035)
    if end_s - begin_s > rules.statistic_days_a_call * DAY_S:
        raise ApiError(40035)
    last_s = today_s - DAY_S if call.now_s - today_s >= rules.statistic_ready_s else today_s - 2 * DAY_S
    return range(day_start(begin_s), min(day_start(end_s), last_s) + 1, DAY_S), open_kfid
