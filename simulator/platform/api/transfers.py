"""Inheritance of customers and groups (fact sheet 3.6)."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import TEXTS, ApiError
from simulator.world.groups import Groups
from simulator.world.people import ACTIVE, LEFT
from simulator.world.roster import Roster
from simulator.world.scale import Scale
from simulator.world.transfers import DONE, WAITING, Kind, Transfers

API = Api()

_ITEMS = 100
_PAGE = 1_000
_MESSAGE_CHARS = 200


def _inheritance(call: Call) -> str:
    return "inheritance|" + fields.text(call.body, "handover_userid")


@API.post("externalcontact/transfer_customer", record=_inheritance, customer=[])
def transfer_customer(call: Call) -> Answer:
    """Asks for the transfer of a present member's customers; each gets an errcode of its own."""
    message = fields.text(call.body, "transfer_success_msg", max_chars=_MESSAGE_CHARS)
    return _ask(call, "on_job", message)


@API.post("externalcontact/resigned/transfer_customer", record=_inheritance, customer=[])
def transfer_customer_of_leaver(call: Call) -> Answer:
    """The same for a member who has left, at most a year ago; otherwise 40097. Over the corp's scale: 610023 (5.1)."""
    if call.corp.of(Scale).over(call.now_s):
        raise ApiError(610023)
    return _ask(call, "resigned", "")


def _ask(call: Call, kind: Kind, message: str) -> Answer:
    handover = fields.text(call.body, "handover_userid", required=True)
    takeover = fields.text(call.body, "takeover_userid", required=True)
    customers = fields.texts(call.body, "external_userid", required=True, missing=41035, most=_ITEMS)
    _check_handover(call, handover, kind)
    check_takeover(call, takeover)
    transfers = call.corp.of(Transfers)
    items = []
    for customer in customers:
        errcode = transfers.objection(kind, handover, takeover, customer, call.now_s)
        if not errcode:
            transfers.ask(kind, handover, takeover, customer, call.now_s, message)
        items.append({"external_userid": customer, "errcode": errcode})
    return {"customer": items}


@API.post("externalcontact/transfer_result", customer=[])
def transfer_result(call: Call) -> Answer:
    """What became of the transfers between two members, 1000 a page."""
    return _results(call, "on_job")


@API.post("externalcontact/resigned/transfer_result", customer=[])
def transfer_result_of_leaver(call: Call) -> Answer:
    """The same for a member who has left."""
    return _results(call, "resigned")


def _results(call: Call, kind: Kind) -> Answer:
    handover = fields.text(call.body, "handover_userid", required=True)
    takeover = fields.text(call.body, "takeover_userid", required=True)
    for userid in (handover, takeover):
        if userid not in call.corp.people.staff:
            raise ApiError(60111)
    found = call.corp.of(Transfers).results(kind, handover, takeover)
    cursor = fields.text(call.body, "cursor")
    shown, next_cursor = call.page(f"transfer_result|{kind}|{handover}|{takeover}", found, cursor, _PAGE)
    times = {WAITING: lambda t: t.due_s, DONE: lambda t: t.done_s}
    items = [
        {
            "external_userid": transfer.customer,
            "status": transfer.status,
            # Who refused or found no room was never taken over.
            "takeover_time": times[transfer.status](transfer) if transfer.status in times else 0,
        }
        for transfer in shown
    ]
    return {"customer": items, "next_cursor": next_cursor}


@API.post("externalcontact/get_unassigned_list", info=[])
def get_unassigned_list(call: Call) -> Answer:
    """Customers whose member has left and who wait for another one, newest leavers first."""
    limit = fields.clipped(call.body, "page_size", default=_PAGE, most=_PAGE)
    cursor = fields.text(call.body, "cursor")
    position = tuple(call.read_cursor("unassigned", cursor)) if cursor else None
    rows = call.corp.of(Transfers).unassigned(call.now_s, position, limit + 1)
    shown, more = rows[:limit], len(rows) > limit
    return {
        "info": [
            {"handover_userid": userid, "external_userid": customer, "dimission_time": -negative_s}
            for negative_s, userid, customer in shown
        ],
        "is_last": not more,
        "next_cursor": call.write_cursor("unassigned", shown[-1]) if more else "",
    }


@API.post("externalcontact/groupchat/onjob_transfer", failed_chat_list=[])
def transfer_group(call: Call) -> Answer:
    """Groups of present owners get a new one, at once."""
    return _transfer_groups(call, "on_job")


@API.post("externalcontact/groupchat/transfer", failed_chat_list=[])
def transfer_group_of_leaver(call: Call) -> Answer:
    """Groups of owners who have left get a new one, later."""
    return _transfer_groups(call, "resigned")


def _transfer_groups(call: Call, kind: Kind) -> Answer:
    chats = fields.texts(call.body, "chat_id_list", required=True, most=_ITEMS)
    owner = fields.text(call.body, "new_owner", required=True)
    check_takeover(call, owner)
    groups = call.corp.of(Groups)
    failed: list[dict[str, Any]] = []
    for chat_id in chats:
        errcode = groups.inherit(kind, chat_id, owner, call.now_s)
        if errcode:
            failed.append({"chat_id": chat_id, "errcode": errcode, "errmsg": TEXTS[errcode]})
    return {"failed_chat_list": failed}


def _check_handover(call: Call, userid: str, kind: Kind) -> None:
    """Raises ApiError 60111 for somebody unknown, gone (on-job) or gone for too long, 40097 for who is still here."""
    member = call.corp.people.staff.get(userid)
    if member is None:
        raise ApiError(60111)
    if kind == "resigned" and member.status != LEFT:
        raise ApiError(40097)
    if (kind == "on_job") == (member.status == LEFT):
        raise ApiError(60111)
    if kind == "resigned" and not call.corp.of(Transfers).resigned_in_time(userid, call.now_s):
        raise ApiError(60111)


def check_takeover(call: Call, userid: str) -> None:
    """Whoever takes over has to be here (60111), activated (41054) and known by their real name (40098)."""
    member = call.corp.people.staff.get(userid)
    if member is None or member.status == LEFT:
        raise ApiError(60111)
    if member.status != ACTIVE:
        raise ApiError(41054)
    if not call.corp.of(Roster).verified(userid):
        raise ApiError(40098)
