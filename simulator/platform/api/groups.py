"""Customer groups: read, counted, and the codes that lead into them (fact sheet 3.7, 3.8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simulator.platform import fields
from simulator.platform.api.statistics import window
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.days import DAY_S
from simulator.world.groups import Group, GroupFigures, Groups, JoinWay, Member
from simulator.world.people import LEFT
from simulator.world.statistics import Statistics

API = Api()
ALWAYS = (Groups,)

_OWNERS = 100
_PAGE = 1_000
_WECHAT = 1
_STAFF, _EXTERNAL = 1, 2
_STATISTIC_PAGE = 500


@API.post("externalcontact/groupchat/list", group_chat_list=[])
def list_groups(call: Call) -> Answer:
    """Groups by status and owner. Without owners the groups of those who have left are missing."""
    body, groups = call.body, call.corp.of(Groups)
    status = fields.whole(body, "status_filter", default=0, least=0, most=3)
    owners = _owners(call, required=False)
    limit = fields.whole(body, "limit", least=1, most=_PAGE)
    cursor = fields.text(body, "cursor")
    if not owners and _too_many_members(call, groups.rules.unfiltered_members):
        raise ApiError(81017)
    scope = f"groups|{status}|{'|'.join(owners)}"
    after = call.read_cursor(scope, cursor) if cursor else -1
    found: list[dict[str, Any]] = []
    last, more = after, False
    for group in _listed(call, groups, owners, after):
        shown = groups.status(group)
        if status and shown != status:
            continue
        if len(found) == limit:
            more = True
            break
        found.append({"chat_id": group.chat_id, "status": shown})
        last = group.serial
    return {"group_chat_list": found, "next_cursor": call.write_cursor(scope, last) if more else ""}


def _listed(call: Call, groups: Groups, owners: list[str], after: int) -> Iterable[Group]:
    staff = call.corp.people.staff
    if owners:
        owned = (group for owner in owners for group in groups.owned_by(owner) if group.serial > after)
        return sorted(owned, key=lambda group: group.serial)
    return (
        groups.all[serial]
        for serial in range(after + 1, len(groups.all))
        if not groups.all[serial].dismissed_s and staff[groups.all[serial].now.owner].status != LEFT
    )


def _too_many_members(call: Call, most: int) -> bool:
    people = call.corp.people
    return len(people.staff) > most and len(people.serving) > most


def _owners(call: Call, *, required: bool) -> list[str]:
    chosen = fields.obj(call.body, "owner_filter", required=required)
    owners = fields.texts(chosen, "userid_list", required=required, most=_OWNERS)
    if any(owner not in call.corp.people.staff for owner in owners):
        raise ApiError(60111)
    return owners


@API.post("externalcontact/groupchat/get")
def get_group(call: Call) -> Answer:
    """One group as it was two seconds ago; names only when they are asked for."""
    groups = call.corp.of(Groups)
    group = _group(groups, fields.text(call.body, "chat_id", required=True))
    named = fields.flag(call.body, "need_name")
    view = group.read(call.now_s, groups.rules.lag_s)
    return {
        "group_chat": {
            "chat_id": group.chat_id,
            "name": view.name,
            "owner": view.owner,
            "create_time": group.created_s,
            "notice": view.notice,
            "member_list": [_member(call, person, member, named) for person, member in view.members.items()],
            "admin_list": [{"userid": admin} for admin in view.admins],
            "member_version": view.version,
        }
    }


def _group(groups: Groups, chat_id: str) -> Group:
    """Raises ApiError 90501 for no group, 49008 for one that is no more."""
    group = groups.get(chat_id)
    if group is None:
        raise ApiError(90501)
    if group.dismissed_s:
        raise ApiError(49008)
    return group


def _member(call: Call, person: str, member: Member, named: bool) -> dict[str, Any]:
    staff = call.corp.people.staff.get(person)
    shown: dict[str, Any] = {
        "userid": person,
        "type": _EXTERNAL if staff is None else _STAFF,
        "join_time": member.joined_s,
        "join_scene": member.scene,
        "group_nickname": member.nickname,
    }
    if member.invitor:
        shown["invitor"] = {"userid": member.invitor}
    if member.state:
        shown["state"] = member.state
    if staff is not None:
        if named:
            shown["name"] = staff.name
        return shown
    customer = call.corp.people.customer(person)
    if customer.type == _WECHAT:
        shown["unionid"] = customer.unionid
    if named:
        shown["name"] = customer.name
    return shown


@API.post("externalcontact/opengid_to_chatid")
def opengid_to_chatid(call: Call) -> Answer:
    """The group a mini program was opened in; 90511 for an opengid that is none."""
    group = call.corp.of(Groups).by_opengid(fields.text(call.body, "opengid", required=True))
    if group is None:
        raise ApiError(90511)
    if group.dismissed_s:
        raise ApiError(49008)
    return {"chat_id": group.chat_id}


@API.post("externalcontact/groupchat/add_join_way")
def add_join_way(call: Call) -> Answer:
    """A new code into at most five groups."""
    groups = call.corp.of(Groups)
    way = groups.add_way(_way_chats(call), **_way_fields(call.body))
    if way is None:
        raise ApiError(41045)
    return {"config_id": way.config_id}


@API.post("externalcontact/groupchat/get_join_way")
def get_join_way(call: Call) -> Answer:
    """A code as it stands, with groups it has made itself."""
    way = _way(call)
    return {
        "join_way": {
            "config_id": way.config_id,
            "scene": way.scene,
            "remark": way.remark,
            "auto_create_room": int(way.auto_create_room),
            "room_base_name": way.room_base_name,
            "room_base_id": way.room_base_id,
            "chat_id_list": way.chat_ids,
            "qr_code": f"https://work.weixin.qq.com/gm/{way.config_id}",
            "state": way.state,
            "mark_source": way.mark_source,
        }
    }


@API.post("externalcontact/groupchat/update_join_way")
def update_join_way(call: Call) -> Answer:
    """Replaces everything of a code: what is not sent is at its default again."""
    way = _way(call)
    chats, changed = _way_chats(call), _way_fields(call.body)
    way.chat_ids = chats
    for name, value in changed.items():
        setattr(way, name, value)
    return {}


@API.post("externalcontact/groupchat/del_join_way")
def delete_join_way(call: Call) -> Answer:
    """A code leads nowhere from now on; who came through it stays."""
    way = _way(call)
    del call.corp.of(Groups).ways[way.config_id]
    return {}


def _way(call: Call) -> JoinWay:
    """Raises ApiError 41039: the code of a wrong config_id of contact ways; the platform names none for these."""
    way = call.corp.of(Groups).ways.get(fields.text(call.body, "config_id", required=True))
    if way is None:
        raise ApiError(41039)
    return way


def _way_chats(call: Call) -> list[str]:
    groups = call.corp.of(Groups)
    chats = fields.texts(call.body, "chat_id_list", required=True, most=groups.rules.groups_per_way)
    for chat_id in chats:
        _group(groups, chat_id)
    return chats


def _way_fields(body: fields.Body) -> dict[str, Any]:
    return {
        "scene": fields.whole(body, "scene", least=1, most=2, code=41038),
        "remark": fields.text(body, "remark", max_chars=30, too_long=41043),
        "auto_create_room": fields.flag(body, "auto_create_room", default=True),
        "room_base_name": fields.text(body, "room_base_name", max_chars=40),
        "room_base_id": fields.whole(body, "room_base_id", default=1, least=0, most=2**31 - 1),
        "state": fields.text(body, "state", max_chars=30, too_long=41042),
        "mark_source": fields.flag(body, "mark_source", default=True),
    }


@API.post("externalcontact/groupchat/statistic", items=[])
def statistic(call: Call) -> Answer:
    """Numbers of owners over some days, ordered. Days that are not worked out yet count for nothing."""
    body = call.body
    owners = _owners(call, required=True)
    first, last = window(call, "day_begin_time", "day_end_time", end_missing_is_start=True)
    order = fields.whole(body, "order_by", default=1, least=1, most=4)
    ascending = fields.flag(body, "order_asc")
    offset = fields.whole(body, "offset", default=0, least=0)
    limit = fields.clipped(body, "limit", default=_STATISTIC_PAGE, most=_PAGE)
    groups, statistics = call.corp.of(Groups), call.corp.of(Statistics)
    while last >= first and not statistics.ready(last, call.now_s):
        last -= DAY_S
    rows: list[tuple[str, GroupFigures]] = []
    if last >= first:
        owned = ((owner, groups.ever_owned_by(owner)) for owner in owners)
        rows = [(owner, groups.figures(found, first, last)) for owner, found in owned if found]
    rows.sort(key=lambda row: _ORDERS[order](row[1]), reverse=not ascending)
    shown = rows[offset : offset + limit]
    return {
        "total": len(rows),
        "next_offset": min(offset + limit, len(rows)),
        "items": [{"owner": owner, "data": _figures(figures)} for owner, figures in shown],
    }


_ORDERS = {
    1: lambda figures: figures.new_groups,
    2: lambda figures: figures.groups,
    3: lambda figures: figures.new_members,
    4: lambda figures: figures.members,
}


@API.post("externalcontact/groupchat/statistic_group_by_day", items=[])
def statistic_group_by_day(call: Call) -> Answer:
    """Numbers of owners together, a row a day. Yesterday's row comes in the morning."""
    owners = _owners(call, required=True)
    first, last = window(call, "day_begin_time", "day_end_time", end_missing_is_start=True)
    groups, statistics = call.corp.of(Groups), call.corp.of(Statistics)
    found = [group for owner in owners for group in groups.ever_owned_by(owner)]
    items = []
    for day_s in range(first, last + 1, DAY_S):
        if statistics.ready(day_s, call.now_s):
            items.append({"stat_time": day_s, "data": _figures(groups.figures(found, day_s, day_s))})
        elif statistics.zero_until_ready(day_s, call.now_s):
            items.append({"stat_time": day_s, "data": _figures(groups.figures((), day_s, day_s))})
    return {"items": items}


def _figures(figures: GroupFigures) -> dict[str, int]:
    return {
        "new_chat_cnt": figures.new_groups,
        "chat_total": figures.groups,
        "chat_has_msg": figures.groups_with_messages,
        "new_member_cnt": figures.new_members,
        "member_total": figures.members,
        "member_has_msg": figures.writers,
        "msg_total": figures.messages,
        "migrate_trainee_chat_cnt": figures.migrated,
    }
