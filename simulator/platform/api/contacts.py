"""Staff and customers, read (fact sheet 3.2)."""

from __future__ import annotations

from typing import Any

from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.relations import Relationship

API = Api()


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
    if staff_id not in call.corp.people.staff:
        raise ApiError(60111)
    customers = call.corp.relations.customers_of(staff_id)
    if not customers:
        raise ApiError(84061)
    return {"external_userid": customers}


@API.get("externalcontact/get", follow_user=[])
def get_customer(call: Call) -> Answer:
    """One customer and who follows; only half-added or deleted by all staff: 84061 (fact sheet 3.2, 2.1)."""
    customer_id = call.query.get("external_userid", "")
    if not customer_id:
        raise ApiError(41035)
    if customer_id not in call.corp.people.known:
        raise ApiError(40096)
    followers = call.corp.relations.followers_of(customer_id)
    if not followers:
        raise ApiError(84061)
    shown, cursor = call.page(f"get|{customer_id}", followers, call.query.get("cursor", ""), _FOLLOWERS_A_PAGE)
    return {
        "external_contact": external_contact(call, customer_id),
        "follow_user": [follow_user(staff_id, customer_id, pair) for staff_id, pair in shown],
        "next_cursor": cursor,
    }


_FOLLOWERS_A_PAGE = 500


def external_contact(call: Call, customer_id: str) -> dict[str, Any]:
    """The person, as the platform shows them."""
    person = call.corp.people.customer(customer_id)
    return {
        "external_userid": customer_id,
        "name": person.name,
        "avatar": person.avatar,
        "type": person.type,
        "gender": person.gender,
        "unionid": person.unionid,
    }


def follow_user(staff_id: str, customer_id: str, pair: Relationship) -> dict[str, Any]:
    """One staff member's side of it."""
    episode = pair.episodes[-1]
    shown: dict[str, Any] = {
        "userid": staff_id,
        "remark": "",
        "description": "",
        "createtime": episode.started_s,
        "tags": [],
        "remark_mobiles": [],
        "oper_userid": episode.oper or customer_id,
        "add_way": episode.add_way,
    }
    if episode.channel:
        shown["state"] = episode.channel
    return shown
