"""Staff and customers, read; and what staff note about customers, written (fact sheet 3.2, 3.3)."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.groups import Groups
from simulator.world.media import MESSAGE, MediaBook
from simulator.world.notes import Note, Notes
from simulator.world.payers import Payers
from simulator.world.people import LEFT
from simulator.world.relations import Episode, Relationship
from simulator.world.scale import Scale
from simulator.world.strategies import Strategies
from simulator.world.tags import Tag, TagBook

API = Api()
ALWAYS = (Scale,)

_VIDEO_ACCOUNT = 10
"""add_way of who came by a video account."""
_WECHAT = 1
_PERSONAL = 2
"""Type of a staff member's own tag; 1 are the corp's, 3 those of a rule group."""


class ContactRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``contacts`` of the rules (fact sheet 3.2)."""

    followers_a_page: int = 500
    batch_staff: int = 100
    batch_page: int = 50
    batch_longest_page: int = 100
    served_page: int = 1_000
    served_longest_page: int = 1_000
    served_life_s: int = 14_400
    """Of the cursors of contact_list and of the tmp_openids of one traversal."""
    open_platform_bound: bool = True
    """Without an open-platform account of the corp's there is no unionid."""
    payment_appid: str = "wx0000000000000001"
    """The corp's own official account or mini program, whose openids convert_to_openid gives."""
    video_account: str = "品牌视频号"
    unlicensed: tuple[str, ...] = ()
    """Staff without an interface licence: left out of batch/get_by_user."""
    remark_chars: int = 20
    description_chars: int = 150
    company_chars: int = 20


class ReadLag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``read_lag`` of the rules (fact sheet 1.7, 6.12). Milliseconds."""

    contact_ms: int = 0
    """How long after an add externalcontact/get still says 84061 of the pair."""


def contact_rules(corp: CorpWorld) -> ContactRules:
    """A corp's rules, for ``CorpWorld.of``."""
    return corp.rules_of("contacts", ContactRules)


def read_lag(corp: CorpWorld) -> ReadLag:
    """A corp's read lag, for ``CorpWorld.of``."""
    return corp.rules_of("read_lag", ReadLag)


@API.get("externalcontact/get_follow_user_list", follow_user=[])
def get_follow_user_list(call: Call) -> Answer:
    """Staff with 客户联系."""
    return {"follow_user": list(call.corp.people.serving)}


@API.get("externalcontact/list", external_userid=[])
def list_customers(call: Call) -> Answer:
    """Customers of one staff member; none: 84061 with an empty list."""
    staff_id = call.query.get("userid", "")
    if not staff_id:
        raise ApiError(40058)
    check_staff(call, staff_id)
    customers = call.corp.relations.customers_of(staff_id)
    if not customers:
        raise ApiError(84061)
    return {"external_userid": customers}


@API.get("externalcontact/get", follow_user=[])
def get_customer(call: Call) -> Answer:
    """One customer and who follows; only half-added or deleted by all staff: 84061 (fact sheet 3.2, 2.1).

    The same for a short time after an add, as the rule ``read_lag.contact_ms`` says (1.7).
    """
    customer_id = call.query.get("external_userid", "")
    if not customer_id:
        raise ApiError(41035)
    check_customer(call, customer_id)
    scope, cursor = f"get|{customer_id}", call.query.get("cursor", "")
    after = call.read_cursor(scope, cursor) if cursor else ""
    followers = call.corp.relations.followers_of(customer_id)
    if lag_ms := call.corp.of(read_lag).contact_ms:
        seen_s = (call.now_ms - lag_ms) / 1000
        followers = [(staff_id, pair) for staff_id, pair in followers if _episode(pair).started_s <= seen_s]
    if not followers:
        raise ApiError(84061)
    size = call.corp.of(contact_rules).followers_a_page
    start = bisect_right(followers, after, key=lambda follower: follower[0])
    shown = followers[start : start + size]
    more = start + size < len(followers)
    return {
        "external_contact": external_contact(call, customer_id),
        "follow_user": [follow_user(call.corp, staff_id, customer_id, pair) for staff_id, pair in shown],
        "next_cursor": call.write_cursor(scope, shown[-1][0]) if more else "",
    }


@API.post("externalcontact/batch/get_by_user", external_contact_list=[])
def get_by_user(call: Call) -> Answer:
    """Customers of up to 100 staff members, one row a pair; a larger limit is cut to 100.

    Staff without customers have no rows, which is no error. Staff without a licence are named in fail_info; nobody
    with one: 701008.
    """
    rules = call.corp.of(contact_rules)
    staff = fields.texts(call.body, "userid_list", required=True, most=rules.batch_staff, too_many=40031)
    limit = fields.clipped(call.body, "limit", default=rules.batch_page, most=rules.batch_longest_page)
    cursor = fields.text(call.body, "cursor")
    for staff_id in staff:
        check_staff(call, staff_id)
    scope = "get_by_user|" + "|".join(staff)
    number, after = call.read_cursor(scope, cursor) if cursor else (0, "")
    licensed = [staff_id for staff_id in staff if staff_id not in rules.unlicensed]
    if not licensed:
        raise ApiError(701008)
    rows: list[dict[str, Any]] = []
    next_cursor = ""
    relations = call.corp.relations
    while number < len(licensed) and not next_cursor:
        staff_id = licensed[number]
        customers = relations.customers_of(staff_id)
        for customer_id in customers[bisect_right(customers, after) :]:
            if len(rows) == limit:
                next_cursor = call.write_cursor(scope, [number, after])
                break
            pair = relations.get(staff_id, customer_id)
            if pair is not None:
                info = follow_info(call.corp, staff_id, customer_id, pair)
                rows.append({"external_contact": external_contact(call, customer_id), "follow_info": info})
            after = customer_id
        else:
            number, after = number + 1, ""
    return {
        "external_contact_list": rows,
        "next_cursor": next_cursor,
        "fail_info": {"unlicensed_userid_list": [staff_id for staff_id in staff if staff_id in rules.unlicensed]},
    }


class _Traversals:
    """The traversals of contact_list: each has tmp_openids of its own and sees the groups' people of one instant."""

    def __init__(self, _corp: CorpWorld) -> None:
        self._begun = 0
        self._outsiders: dict[int, tuple[float, list[str]]] = {}
        """Traversal → (when it was begun, people in groups only)."""

    def begin(self) -> int:
        """A number no other traversal has."""
        self._begun += 1
        return self._begun

    def outsiders(self, call: Call, traversal: int, life_s: int) -> list[str]:
        """Read once a traversal, so that people who join and leave groups shift no page."""
        if traversal not in self._outsiders:
            alive = call.clock_s - life_s
            self._outsiders = {n: kept for n, kept in self._outsiders.items() if kept[0] >= alive}
            self._outsiders[traversal] = call.clock_s, list(call.corp.of(Groups).outside_members())
        return self._outsiders[traversal][1]


@API.post("externalcontact/contact_list", info_list=[])
def contact_list(call: Call) -> Answer:
    """Everybody the corp is served with: a row for each friendship, and one for each person who is in groups only.

    All rows of a person carry one tmp_openid, which is another one in another traversal; distinct tmp_openids are the
    billed scale (fact sheet 5.1). Cursors live 4 h. Friends come first, by staff member. Of somebody in several groups
    the one joined first is shown (the platform documents nothing).
    """
    rules = call.corp.of(contact_rules)
    limit = fields.clipped(call.body, "limit", default=rules.served_page, most=rules.served_longest_page)
    cursor = fields.text(call.body, "cursor")
    traversals = call.corp.of(_Traversals)
    traversal, *after = call.read_cursor("contact_list", cursor) if cursor else (traversals.begin(), "", "", -1)
    rows: list[dict[str, Any]] = []
    next_cursor = ""
    for position, who, row in _served(call, traversal, *after):
        if len(rows) == limit:
            next_cursor = call.write_cursor("contact_list", [traversal, *after], ttl_s=rules.served_life_s)
            break
        rows.append({**row, "tmp_openid": _tmp_openid(call, traversal, who)})
        after = position
    return {"info_list": rows, "next_cursor": next_cursor}


def _served(
    call: Call, traversal: int, staff_id: str, customer_id: str, outsider: int
) -> Iterator[tuple[list[Any], str, dict[str, Any]]]:
    """(position, person, row) of everybody behind a position, lazily.

    A position: the last pair shown, then the place of the last outsider; -1 while there are friends to come.
    """
    corp = call.corp
    if outsider < 0:
        for a_staff_id, a_customer_id, pair in _friends(corp, staff_id, customer_id):
            row = {
                "is_customer": True,
                "external_userid": a_customer_id,
                "follow_userid": a_staff_id,
                "add_time": _episode(pair).started_s,
            }
            yield [a_staff_id, a_customer_id, -1], a_customer_id, row
    groups, now_outside = corp.of(Groups), corp.of(Groups).outside_members()
    everybody = corp.of(_Traversals).outsiders(call, traversal, corp.of(contact_rules).served_life_s)
    for place in range(outsider + 1, len(everybody)):
        who = everybody[place]
        if who not in now_outside:
            continue
        group = groups.groups_of(who)[0]
        row = {
            "is_customer": False,
            "name": _masked(corp.people.customer(who).name),
            "follow_userid": group.now.owner,
            "chat_id": group.chat_id,
            "chat_name": group.now.name,
            "add_time": group.now.members[who].joined_s,
        }
        yield ["", "", place], who, row


def _friends(corp: CorpWorld, after_staff: str, after_customer: str) -> Iterator[tuple[str, str, Relationship]]:
    """Every pair that counts behind a pair, in order of ids."""
    relations, one_way_counts = corp.relations, corp.of(Scale).rules.one_way_counts
    staff = sorted(corp.people.staff)
    for staff_id in staff[bisect_left(staff, after_staff) :]:
        customers = relations.customers_of(staff_id)
        start = bisect_right(customers, after_customer) if staff_id == after_staff else 0
        for customer_id in customers[start:]:
            pair = relations.get(staff_id, customer_id)
            if pair is not None and (pair.friend or one_way_counts):
                yield staff_id, customer_id, pair


@API.post("externalcontact/convert_to_openid")
def convert_to_openid(call: Call) -> Answer:
    """The openid of a customer at the corp's own official account; a WeCom user has none (40096)."""
    customer_id = fields.text(call.body, "external_userid", required=True, missing=41035)
    check_customer(call, customer_id)
    if not call.corp.relations.followers_of(customer_id):
        raise ApiError(84061)
    if call.corp.people.customer(customer_id).type != _WECHAT:
        raise ApiError(40096)
    return {"openid": call.corp.of(Payers).openid(customer_id, call.corp.of(contact_rules).payment_appid)}


def _pair(call: Call) -> tuple[str, str]:
    """The staff member and the customer of a body. Raises ApiError 60111, 40096, and 84061 when they are not one's."""
    staff_id = fields.text(call.body, "userid", required=True)
    customer_id = fields.text(call.body, "external_userid", required=True, missing=41035)
    check_staff(call, staff_id)
    check_customer(call, customer_id)
    pair = call.corp.relations.get(staff_id, customer_id)
    if pair is None or not pair.staff_side:
        raise ApiError(84061)
    return staff_id, customer_id


def _record(kind: str, call: Call) -> str:
    return f"{kind}|{fields.text(call.body, 'userid')}|{fields.text(call.body, 'external_userid')}"


@API.post("externalcontact/remark", record=partial(_record, "remark"))
def remark(call: Call) -> Answer:
    """Overwrites what is given. Empty text changes nothing (the platform documents only ``[""]``, which clears the
    phone numbers); nothing given at all: 40058. The company is kept for WeChat users only. No callback follows.
    """
    rules, body = call.corp.of(contact_rules), call.body
    text = fields.text(body, "remark", max_chars=rules.remark_chars)
    description = fields.text(body, "description", max_chars=rules.description_chars)
    company = fields.text(body, "remark_company", max_chars=rules.company_chars)
    picture = fields.text(body, "remark_pic_mediaid")
    mobiles = _mobiles(body)
    if not (text or description or company or picture or mobiles is not None):
        raise ApiError(40058)
    staff_id, customer_id = _pair(call)
    if picture:
        check_picture(call, picture)
    call.corp.of(Notes).write(
        staff_id,
        customer_id,
        remark=text,
        description=description,
        company=company if call.corp.people.customer(customer_id).type == _WECHAT else "",
        mobiles=mobiles,
        picture=picture,
    )
    return {}


def _mobiles(body: fields.Body) -> list[str] | None:
    """remark_mobiles: None when absent or empty; ``[""]`` is an empty list of numbers."""
    value = body.get("remark_mobiles")
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise ApiError(40035, wrong_format=True)
    return [number for item in value if (number := fields.text({"mobile": item}, "mobile"))]


@API.post("externalcontact/mark_tag", record=partial(_record, "tags"))
def mark_tag(call: Call) -> Answer:
    """Puts corp and rule-group tags on a customer and takes them off, for one staff member.

    Neither list, or more than 1000 tags in one: 41111; a tag that is not there: 40068; more than 3000 on the customer:
    40144. A second writer of the same pair meanwhile: 45035. No callback follows.
    """
    book = call.corp.of(TagBook)
    most = book.rules.marks_a_call
    add = fields.texts(call.body, "add_tag", most=most, too_many=41111)
    remove = fields.texts(call.body, "remove_tag", most=most, too_many=41111)
    if not add and not remove:
        raise ApiError(41111)
    staff_id, customer_id = _pair(call)
    for tag_id in (*add, *remove):
        tag = book.tag(tag_id)
        if tag is None:
            raise ApiError(40068)
        _check_strategy(call, tag, staff_id)
    call.corp.of(Notes).mark(staff_id, customer_id, add, remove)
    return {}


def _check_strategy(call: Call, tag: Tag, staff_id: str) -> None:
    """Tags of a rule group are for customers of the staff it manages; for others they are out of scope (92000)."""
    strategies = call.corp.of(Strategies)
    if tag.group.strategy_id and not strategies.covers(tag.group.strategy_id, staff_id):
        raise ApiError(92000)


def check_staff(call: Call, staff_id: str) -> None:
    """Raises ApiError 60111 for somebody who is not there, or not any more."""
    member = call.corp.people.staff.get(staff_id)
    if member is None or member.status == LEFT:
        raise ApiError(60111)


def check_customer(call: Call, customer_id: str) -> None:
    """Raises ApiError 40096 for an id that is not the corp's."""
    if customer_id not in call.corp.people.known:
        raise ApiError(40096)


def check_picture(call: Call, media_id: str) -> None:
    """Raises ApiError 40007 for anything but a living picture, 40145 for one of another scene."""
    media = call.corp.of(MediaBook).get(media_id, call.now_s)
    if media is None or media.kind != "image":
        raise ApiError(40007)
    if media.scene != MESSAGE:
        raise ApiError(40145)


def external_contact(call: Call, customer_id: str) -> dict[str, Any]:
    """The person, as the platform shows them; who uses WeCom themselves (type 2) with their firm, without a unionid."""
    person = call.corp.people.customer(customer_id)
    shown: dict[str, Any] = {
        "external_userid": customer_id,
        "name": person.name,
        "avatar": person.avatar,
        "type": person.type,
        "gender": person.gender,
    }
    if person.type == _WECHAT:
        if call.corp.of(contact_rules).open_platform_bound:
            shown["unionid"] = person.unionid
        return shown
    position = _POSITIONS[hashlib.blake2b(customer_id.encode(), digest_size=1).digest()[0] % len(_POSITIONS)]
    shown["position"] = position
    shown["corp_name"] = person.corp_name
    shown["corp_full_name"] = person.corp_name + "有限公司" if person.corp_name else ""
    attributes = [{"type": 0, "name": "职务", "text": {"value": position}}]
    shown["external_profile"] = {"external_corp_name": person.corp_name, "external_attr": attributes}
    return shown


_POSITIONS = ("采购经理", "店长", "顾问", "业务员", "总经理")


def follow_user(corp: CorpWorld, staff_id: str, customer_id: str, pair: Relationship) -> dict[str, Any]:
    """One staff member's side of it, as externalcontact/get shows it."""
    note = corp.of(Notes).get(staff_id, customer_id)
    shown = _following(corp, staff_id, customer_id, _episode(pair), note)
    tags: list[dict[str, Any]] = []
    for tag in _tags(corp, note):
        kind = 3 if tag.group.strategy_id else 1
        tags.append({"group_name": tag.group.name, "tag_name": tag.name, "tag_id": tag.id, "type": kind})
    tags += [{"group_name": "个人标签", "tag_name": name, "type": _PERSONAL} for name in note.personal]
    return {**shown, "tags": tags}


def follow_info(corp: CorpWorld, staff_id: str, customer_id: str, pair: Relationship) -> dict[str, Any]:
    """The same as batch/get_by_user shows it: ids of corp and rule-group tags only."""
    note = corp.of(Notes).get(staff_id, customer_id)
    shown = _following(corp, staff_id, customer_id, _episode(pair), note)
    return {**shown, "tag_id": [tag.id for tag in _tags(corp, note)]}


def _following(corp: CorpWorld, staff_id: str, customer_id: str, episode: Episode, note: Note) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "userid": staff_id,
        "remark": note.remark,
        "description": note.description,
        "createtime": episode.started_s,
        "remark_mobiles": list(note.mobiles),
        "oper_userid": episode.oper or customer_id,
        "add_way": episode.add_way,
    }
    if note.company:
        shown["remark_corp_name"] = note.company
    if episode.channel:
        shown["state"] = episode.channel
    if episode.add_way == _VIDEO_ACCOUNT:
        source = corp.random("video account", staff_id, customer_id, episode.started_s).randint(1, 3)
        shown["wechat_channels"] = {"nickname": corp.of(contact_rules).video_account, "source": source}
    return shown


def _tags(corp: CorpWorld, note: Note) -> list[Tag]:
    if not note.tags:
        return []
    book = corp.of(TagBook)
    return [tag for tag_id in note.tags if (tag := book.tag(tag_id)) is not None]


def _episode(pair: Relationship) -> Episode:
    """The last period as friends; a staff side without one cannot be."""
    return pair.episodes[-1]


def _tmp_openid(call: Call, traversal: int, who: str) -> str:
    text = f"{call.corp.seed}|{call.corp.corp_id}|{call.app.agent_id}|{traversal}|{who}"
    return "T" + hashlib.blake2b(text.encode(), digest_size=15).hexdigest()


def _masked(name: str) -> str:
    """Only the last character of a name that is not a customer's is shown."""
    return "***" + name[-1:]
