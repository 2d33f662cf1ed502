"""The address book, read, and the addresses that the platform calls from (fact sheet 1.9, 2.7).

The fact sheet does not describe the address book's reads; they are here because clients read it together with
customers. Fields are those of an app made after 2022-06-20: no phone, mail, gender or avatar of a member.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simulator.platform import fields
from simulator.platform.api.contacts import check_staff
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.people import LEFT, Department, Staff
from simulator.world.roster import ROOT, Roster

API = Api()


class NetworkRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``network`` of the rules: addresses of the platform, from documentation ranges."""

    callback_ips: tuple[str, ...] = ("192.0.2.11", "192.0.2.12", "198.51.100.*")
    """Where callbacks come from; an entry may end in ``*`` (fact sheet 1.9)."""
    api_ips: tuple[str, ...] = ("203.0.113.21", "203.0.113.22")
    """What the API's name resolves to."""


class DirectoryRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``directory`` of the rules."""

    id_page: int = 10_000
    """Most rows of user/list_id."""


def network_rules(corp: CorpWorld) -> NetworkRules:
    """For ``CorpWorld.of``."""
    return corp.rules_of("network", NetworkRules)


def directory_rules(corp: CorpWorld) -> DirectoryRules:
    """For ``CorpWorld.of``."""
    return corp.rules_of("directory", DirectoryRules)


@API.get("getcallbackip", ip_list=[])
def get_callback_ips(call: Call) -> Answer:
    """Addresses that callbacks come from; asks for no permission."""
    return {"ip_list": list(call.corp.of(network_rules).callback_ips)}


@API.get("get_api_domain_ip", ip_list=[])
def get_api_ips(call: Call) -> Answer:
    """Addresses of the API."""
    return {"ip_list": list(call.corp.of(network_rules).api_ips)}


@API.get("user/get")
def get_user(call: Call) -> Answer:
    """One member; somebody unknown or gone: 60111."""
    staff_id = call.query.get("userid", "")
    if not staff_id:
        raise ApiError(40058)
    check_staff(call, staff_id)
    return _member(call.corp.people.staff[staff_id])


@API.get("user/simplelist", userlist=[])
def list_names(call: Call) -> Answer:
    """Names of the members of a department; ``fetch_child=1``: of those below it too."""
    found = _members(call)
    return {"userlist": [{"userid": m.userid, "name": m.name, "department": list(m.departments)} for m in found]}


@API.get("user/list", userlist=[])
def list_users(call: Call) -> Answer:
    """The same with all that is shown of a member."""
    return {"userlist": [_member(member) for member in _members(call)]}


@API.post("user/list_id", dept_user=[])
def list_user_ids(call: Call) -> Answer:
    """Every (member, department), page by page; ``next_cursor`` is empty at the end."""
    most = call.corp.of(directory_rules).id_page
    limit = fields.whole(call.body, "limit", default=most, least=1, most=most)
    found = [
        {"userid": member.userid, "department": department}
        for member in call.corp.people.staff.values()
        if member.status != LEFT
        for department in member.departments
    ]
    shown, cursor = call.page("user ids", found, fields.text(call.body, "cursor"), limit)
    return {"dept_user": list(shown), "next_cursor": cursor}


@API.get("department/list", department=[])
def list_departments(call: Call) -> Answer:
    """A department and all below it; without ``id`` the whole tree."""
    return {"department": [{**_node(d), "name": d.name, "department_leader": []} for d in _departments(call)]}


@API.get("department/simplelist", department_id=[])
def list_department_ids(call: Call) -> Answer:
    """The same as ids only."""
    return {"department_id": [_node(department) for department in _departments(call)]}


@API.get("department/get")
def get_department(call: Call) -> Answer:
    """One department."""
    department = call.corp.people.departments[_department(call, "id")]
    return {"department": {**_node(department), "name": department.name, "department_leader": []}}


def _node(department: Department) -> dict[str, Any]:
    """Earlier ids come first: the greater ``order``, the earlier it is shown."""
    return {"id": department.id, "parentid": department.parent, "order": max(0, 100_000_000 - department.id)}


def _departments(call: Call) -> list[Department]:
    top = _department(call, "id") if call.query.get("id") else ROOT
    below = call.corp.of(Roster).below(top)
    return [department for number, department in call.corp.people.departments.items() if number in below]


def _members(call: Call) -> list[Staff]:
    department = _department(call, "department_id")
    people = call.corp.people
    if call.query.get("fetch_child") == "1":
        return [people.staff[userid] for userid in call.corp.of(Roster).members_of([department])]
    return [m for m in people.staff.values() if m.status != LEFT and department in m.departments]


def _department(call: Call, name: str) -> int:
    """A department's id from the query. Raises ApiError 40058, 40035, and 60123 when there is none."""
    value = call.query.get(name, "")
    if not value:
        raise ApiError(40058)
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise ApiError(40035)
    if int(value) not in call.corp.people.departments:
        raise ApiError(60123)
    return int(value)


def _member(member: Staff) -> dict[str, Any]:
    return {
        "userid": member.userid,
        "name": member.name,
        "department": list(member.departments),
        "order": [0] * len(member.departments),
        "is_leader_in_dept": [0] * len(member.departments),
        "direct_leader": [],
        "main_department": member.departments[0] if member.departments else ROOT,
        "position": "",
        "status": member.status,
        "isleader": 0,
        "alias": "",
    }
