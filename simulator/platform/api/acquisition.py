"""Acquisition links (获客助手, fact sheet 3.13): only the app that made a link sees it."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.api.statistics import window
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.acquisition import AcquisitionBook, Link
from simulator.world.days import DAY_S
from simulator.world.people import LEFT
from simulator.world.roster import Roster

API = Api()
ALWAYS = (AcquisitionBook,)

_LINKS = 100
_CUSTOMERS = 1_000
_MEMBERS = 500
_PRIORITY = 1_000
_NAME_CHARS = 30
_CHOSEN = 2


@API.post("externalcontact/customer_acquisition/list_link", link_id_list=[])
def list_link(call: Call) -> Answer:
    """Ids of the app's links, at most 100 a page."""
    limit = fields.clipped(call.body, "limit", default=_LINKS, most=_LINKS)
    cursor = fields.text(call.body, "cursor")
    ids = [link.link_id for link in _book(call).links.values() if link.agent_id == call.app.agent_id]
    shown, next_cursor = call.page("links", ids, cursor, limit)
    return {"link_id_list": list(shown), "next_cursor": next_cursor}


@API.post("externalcontact/customer_acquisition/get")
def get_link(call: Call) -> Answer:
    """One link as it stands."""
    link = _link(call)
    answer: Answer = {
        "link": {**_shown(link), "skip_verify": link.skip_verify, "mark_source": link.mark_source},
        "range": {"user_list": link.user_list, "department_list": link.department_list},
    }
    if link.priority_type:
        answer["priority_option"] = {
            "priority_type": link.priority_type,
            "priority_userid_list": link.priority_userid_list,
        }
    return answer


@API.post("externalcontact/customer_acquisition/create_link")
def create_link(call: Call) -> Answer:
    """A new link to members and departments, 500 people at most."""
    name = fields.text(call.body, "link_name", required=True, max_chars=_NAME_CHARS)
    members, departments = _range(call, required=True)
    link = _book(call).create(
        name,
        call.now_s,
        agent_id=call.app.agent_id,
        user_list=members,
        department_list=departments,
        skip_verify=fields.flag(call.body, "skip_verify", default=True),
        mark_source=fields.flag(call.body, "mark_source", default=True),
        **_priority(call),
    )
    if link is None:
        raise ApiError(41095)
    return {"link": _shown(link)}


@API.post("externalcontact/customer_acquisition/update_link")
def update_link(call: Call) -> Answer:
    """Changes what is sent and leaves the rest as it is."""
    link, body = _link(call), call.body
    name = fields.text(body, "link_name", max_chars=_NAME_CHARS)
    members, departments = _range(call, required=False)
    skip_verify = fields.flag(body, "skip_verify", default=link.skip_verify)
    mark_source = fields.flag(body, "mark_source", default=link.mark_source)
    priority = _priority(call) if body.get("priority_option") is not None else None
    link.name = name or link.name
    if members or departments:
        link.user_list, link.department_list = tuple(members), tuple(departments)
    link.skip_verify, link.mark_source = skip_verify, mark_source
    if priority is not None:
        link.priority_type = priority.get("priority_type", 0)
        link.priority_userid_list = tuple(priority.get("priority_userid_list", ()))
    return {}


@API.post("externalcontact/customer_acquisition/delete_link")
def delete_link(call: Call) -> Answer:
    """Ends a link; by API, nobody is told."""
    _book(call).delete(_link(call).link_id, call.now_s, tell=False)
    return {}


@API.post("externalcontact/customer_acquisition/customer", customer_list=[])
def list_link_customers(call: Call) -> Answer:
    """Who came through a link, in order of coming, at most 1000 a page."""
    link, book = _link(call), _book(call)
    limit = fields.clipped(call.body, "limit", default=_CUSTOMERS, most=_CUSTOMERS)
    cursor = fields.text(call.body, "cursor")
    came = list(link.came.values())
    shown, next_cursor = call.page(f"link customers|{link.link_id}", came, cursor, limit)
    return {
        "customer_list": [
            {
                "external_userid": one.customer_id,
                "userid": one.staff_id,
                "chat_status": book.chat_status(one),
                "state": one.state,
            }
            for one in shown
        ],
        "next_cursor": next_cursor,
    }


@API.get("externalcontact/customer_acquisition_quota", quota_list=[])
def quota(call: Call) -> Answer:
    """Uses that were bought and have not expired, and what is left of them, by date of expiry."""
    book = _book(call)
    return {
        "total": book.total,
        "balance": book.balance,
        "quota_list": [{"expire_date": p.expires_s, "balance": p.balance} for p in book.packages],
    }


@API.post("externalcontact/customer_acquisition/statistic")
def link_statistic(call: Call) -> Answer:
    """People who opened a link in some days, each once, and customers who came of it."""
    link = _link(call)
    first, last = window(call, "start_time", "end_time")
    days = range(first, last + 1, DAY_S)
    visitors = set().union(*(link.visitors.get(day_s, ()) for day_s in days))
    return {
        "click_link_customer_cnt": len(visitors),
        "new_customer_cnt": sum(link.added.get(day_s, 0) for day_s in days),
    }


@API.post("externalcontact/customer_acquisition/get_chat_info")
def get_chat_info(call: Call) -> Answer:
    """Whose message a ``ChatKey`` told of, for half an hour."""
    key = fields.text(call.body, "chat_key", required=True)
    chat = _book(call).chat(key, call.app.agent_id, call.now_s)
    if chat is None:
        raise ApiError(41201)
    return {
        "userid": chat.staff_id,
        "external_userid": chat.customer_id,
        "chat_info": {"recv_msg_cnt": chat.received, "link_id": chat.link_id, "state": chat.state},
    }


def _book(call: Call) -> AcquisitionBook:
    book = call.corp.of(AcquisitionBook)
    book.open(call.now_s)
    return book


def _link(call: Call) -> Link:
    """Raises ApiError 40035 for a link that is none, or another app's: the platform names no code of its own."""
    link = _book(call).links.get(fields.text(call.body, "link_id", required=True))
    if link is None or link.agent_id != call.app.agent_id:
        raise ApiError(40035)
    return link


def _shown(link: Link) -> dict[str, Any]:
    return {"link_id": link.link_id, "link_name": link.name, "url": link.url, "create_time": link.created_s}


def _range(call: Call, *, required: bool) -> tuple[list[str], list[int]]:
    """Members and departments; raises ApiError 60111 and 60123 for unknown ones, 40032 for more than 500 people."""
    chosen = fields.obj(call.body, "range", required=required)
    members = fields.texts(chosen, "user_list", most=_MEMBERS)
    departments = list(dict.fromkeys(fields.wholes(chosen, "department_list", most=_MEMBERS)))
    people = call.corp.people
    if required and not members and not departments:
        raise ApiError(40058)
    for member in members:
        if member not in people.staff or people.staff[member].status == LEFT:
            raise ApiError(60111)
    if any(department not in people.departments for department in departments):
        raise ApiError(60123)
    if departments and len({*members, *call.corp.of(Roster).members_of(departments)}) > _MEMBERS:
        raise ApiError(40032)
    return members, departments


def _priority(call: Call) -> dict[str, Any]:
    option = fields.obj(call.body, "priority_option")
    if not option:
        return {}
    kind = fields.whole(option, "priority_type", least=0, most=_CHOSEN)
    members = fields.texts(option, "priority_userid_list", most=_PRIORITY)
    if any(member not in call.corp.people.staff for member in members):
        raise ApiError(60111)
    if kind == _CHOSEN and not members:
        raise ApiError(40058)
    return {"priority_type": kind, "priority_userid_list": members}
