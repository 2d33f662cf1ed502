"""Contact ways: codes and buttons by which customers come, and the temporary chats of some (fact sheet 3.3)."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.api.contacts import check_customer, check_picture, check_staff
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.scale import Scale
from simulator.world.ways import MINI_PROGRAM, MULTI, QR_CODE, SINGLE, Way, Ways

API = Api()

_TEXT_BYTES = 4_000
_LINK_BYTES = {"title": 128, "desc": 512}
_CARD_BYTES = {"title": 64}
_ENDINGS = ("image", "link", "miniprogram")


@API.post("externalcontact/add_contact_way")
def add_contact_way(call: Call) -> Answer:
    """A new way; its config_id is told here and nowhere else (unless it is listed), a QR code's address too.

    Errors: 41037 type, 41038 scene, 41040 style, 41041 members, 41042 state, 41043 remark, 41044 departments, 41045
    too many ways, 48002 a temporary one outside the medical trade, 610023 the corp's scale is used up.
    """
    ways, body = call.corp.of(Ways), call.body
    rules = ways.rules
    kind = fields.whole(body, "type", missing=41037, least=SINGLE, most=MULTI, code=41037)
    scene = fields.whole(body, "scene", missing=41038, least=MINI_PROGRAM, most=QR_CODE, code=41038)
    temporary = fields.flag(body, "is_temp")
    if temporary and not rules.temporary:
        raise ApiError(48002)
    draft = Way("", call.now_s, kind, scene, temporary=temporary)
    if temporary:
        draft.expires_in, draft.chat_expires_in = rules.expires_s, rules.chat_expires_s
    draft.exclusive = fields.flag(body, "is_exclusive")
    draft.mark_source = fields.flag(body, "mark_source", default=True)
    _write(call, draft)
    if call.corp.of(Scale).full(call.now_s):
        raise ApiError(610023)

    def named(config_id: str) -> Way:
        draft.config_id = config_id
        return draft

    way = ways.add(named, call.now_s)
    return {"config_id": way.config_id, **({"qr_code": way.qr_code} if way.qr_code else {})}


@API.post("externalcontact/get_contact_way")
def get_contact_way(call: Call) -> Answer:
    """All of one way; an unknown config_id, or a temporary way past its time: 41039."""
    way = _way(call)
    shown: dict[str, Any] = {
        "config_id": way.config_id,
        "type": way.type,
        "scene": way.scene,
        "style": way.style,
        "remark": way.remark,
        "skip_verify": way.skip_verify,
        "state": way.state,
        "user": way.users,
        "party": way.parties,
        "is_temp": way.temporary,
        "is_exclusive": way.exclusive,
        "mark_source": way.mark_source,
    }
    if way.qr_code:
        shown["qr_code"] = way.qr_code
    if way.temporary:
        shown["expires_in"], shown["chat_expires_in"] = way.expires_in, way.chat_expires_in
        shown["unionid"], shown["conclusions"] = way.unionid, way.conclusions
    return {"contact_way": shown}


@API.post("externalcontact/list_contact_way", contact_way=[])
def list_contact_way(call: Call) -> Answer:
    """Ways made in a window (default: the last 90 days), oldest first; temporary ones are not listed."""
    ways, body = call.corp.of(Ways), call.body
    end_s = fields.whole(body, "end_time", default=call.now_s, least=0, most=_LATEST_S)
    begin_s = fields.whole(body, "start_time", default=max(0, end_s - ways.rules.window_s), least=0, most=_LATEST_S)
    limit = fields.whole(body, "limit", default=ways.rules.page, least=1, most=ways.rules.longest_page)
    cursor = fields.text(body, "cursor")
    if begin_s > end_s:
        raise ApiError(40035)
    # A default end moves with the clock; the pages of one listing keep the window they began with.
    scope = f"ways|{body.get('start_time')}|{body.get('end_time')}"
    after = None
    if cursor:
        begin_s, end_s, *place = call.read_cursor(scope, cursor)
        after = (place[0], place[1])
    found, position = ways.listed(begin_s, end_s, after, limit)
    next_cursor = call.write_cursor(scope, [begin_s, end_s, *position]) if position else ""
    return {"contact_way": [{"config_id": config_id} for config_id in found], "next_cursor": next_cursor}


_LATEST_S = 2**33


@API.post("externalcontact/update_contact_way")
def update_contact_way(call: Call) -> Answer:
    """Overwrites the fields that are given, lists as a whole. Type, scene and what makes it temporary stay."""
    _write(call, _way(call))
    return {}


@API.post("externalcontact/del_contact_way")
def delete_contact_way(call: Call) -> Answer:
    """The code leads nowhere from now on."""
    call.corp.of(Ways).delete(_way(call))
    return {}


@API.post("externalcontact/close_temp_chat")
def close_temp_chat(call: Call) -> Answer:
    """Ends a temporary chat; none open between the two: 84061."""
    staff_id = fields.text(call.body, "userid", required=True)
    customer_id = fields.text(call.body, "external_userid", required=True, missing=41035)
    check_staff(call, staff_id)
    check_customer(call, customer_id)
    ways = call.corp.of(Ways)
    if not ways.chatting(staff_id, customer_id, call.now_s):
        raise ApiError(84061)
    ways.close_chat(staff_id, customer_id)
    return {}


def _way(call: Call) -> Way:
    config_id = fields.text(call.body, "config_id", required=True, missing=41039)
    return call.corp.of(Ways).get(config_id, call.now_s)


def _write(call: Call, way: Way) -> None:
    """Puts the body's fields into a way; nothing of a body that is refused."""
    rules, body = call.corp.of(Ways).rules, call.body
    style = way.style
    if "style" in body:
        style = fields.whole(body, "style", default=0, least=0, most=rules.styles, code=41040)
    remark, state = way.remark, way.state
    if "remark" in body:
        remark = fields.text(body, "remark", max_chars=rules.remark_chars, too_long=41043)
    if "state" in body:
        state = fields.text(body, "state", max_chars=rules.state_chars, too_long=41042)
    skip_verify = fields.flag(body, "skip_verify", default=way.skip_verify)
    users, parties = _members(call, way)
    expires_in, chat_expires_in = way.expires_in, way.chat_expires_in
    unionid, conclusions = way.unionid, way.conclusions
    if way.temporary:
        expires_in = fields.whole(body, "expires_in", default=expires_in, least=1, most=rules.longest_s)
        chat_expires_in = fields.whole(body, "chat_expires_in", default=chat_expires_in, least=1, most=rules.longest_s)
        unionid = fields.text(body, "unionid") or unionid
        if body.get("conclusions") is not None:
            conclusions = _conclusions(call, fields.obj(body, "conclusions"))
    way.style, way.remark, way.state, way.skip_verify = style, remark, state, skip_verify
    way.users, way.parties = users, parties
    way.expires_in, way.chat_expires_in = expires_in, chat_expires_in
    way.unionid, way.conclusions = unionid, conclusions


def _members(call: Call, way: Way) -> tuple[list[str], list[int]]:
    """Whom a way leads to: one member for a single one, up to 100 with those of departments for the other."""
    body, ways = call.body, call.corp.of(Ways)
    users = fields.texts(body, "user", most=ways.rules.members, too_many=41041) if "user" in body else way.users
    parties = way.parties
    if "party" in body:
        parties = list(dict.fromkeys(fields.wholes(body, "party", most=ways.rules.members, too_many=41044)))
    if not users and not parties:
        raise ApiError(40058)
    for staff_id in users:
        check_staff(call, staff_id)
    for party in parties:
        if party not in call.corp.people.departments:
            raise ApiError(41044)
    if way.type == SINGLE:
        if parties:
            raise ApiError(41044)
        if len(users) != 1:
            raise ApiError(41041)
    elif parties and len(ways.members(users, parties)) > ways.rules.members:
        raise ApiError(41041)
    return users, parties


def _conclusions(call: Call, given: dict[str, Any]) -> dict[str, Any]:
    """What is sent when a temporary chat ends: a text, and one of picture, link and mini program."""
    shown: dict[str, Any] = {}
    if "text" in given:
        content = fields.text(fields.obj(given, "text"), "content", max_bytes=_TEXT_BYTES, too_long=45002)
        shown["text"] = {"content": content}
    endings = [kind for kind in _ENDINGS if given.get(kind) is not None]
    if len(endings) > 1:
        raise ApiError(41064)
    for kind in endings:
        of = fields.obj(given, kind)
        if kind == "image":
            media_id = fields.text(of, "media_id", required=True)
            check_picture(call, media_id)
            shown[kind] = {"pic_url": f"https://wework.qpic.example/wwpic/{media_id}/0"}
            continue
        required, limits = (
            (("title", "url"), _LINK_BYTES)
            if kind == "link"
            else (("title", "pic_media_id", "appid", "page"), _CARD_BYTES)
        )
        names = (*required, "picurl", "desc") if kind == "link" else required
        shown[kind] = {
            name: fields.text(of, name, required=name in required, max_bytes=limits.get(name, 0), too_long=45002)
            for name in names
        }
        if kind == "miniprogram":
            check_picture(call, shown[kind]["pic_media_id"])
    return shown
