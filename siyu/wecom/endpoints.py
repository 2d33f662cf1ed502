"""Every call this system may make, and nothing else: the documented endpoints, what a repeat of each would do, and
which of them are counted and settled together.

There is deliberately no call that deletes a contact, adds a friend or writes to a customer in staff's name: WeCom
documents none (fact sheet 3.14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

GETTOKEN = "gettoken"

Repeat = Literal[
    "read",  # asks, changes nothing
    "set",  # gives an absolute value: a second call changes nothing more
    "once",  # uses a code up: a second call is told so
    "create",  # makes something new each time: never repeated before it is known what became of the first
]
"""What a second identical request does."""


@dataclass(frozen=True)
class Endpoint:
    """One documented call. ``path`` is below the base URL."""

    path: str
    method: Literal["GET", "POST"]
    repeat: Repeat
    group: str
    """Actions of one corp and group share a shard: a call that makes something and the calls that tell what became of
    it are never in two processes. Limits count per endpoint all the same."""

    @property
    def effect(self) -> Literal["read", "write"]:
        """Whether it changes anything."""
        return "read" if self.repeat == "read" else "write"

    @property
    def repeat_safe(self) -> bool:
        """A second identical request changes nothing more."""
        return self.repeat != "create"


_EXTERNAL = "externalcontact/"

# group → (method, repeat, path). A group of one is named like its only endpoint.
_GROUPS: dict[str, tuple[tuple[Literal["GET", "POST"], Repeat, str], ...]] = {
    "message": (
        ("POST", "create", _EXTERNAL + "add_msg_template"),
        ("POST", "create", _EXTERNAL + "remind_groupmsg_send"),
        ("POST", "set", _EXTERNAL + "cancel_groupmsg_send"),
        ("POST", "read", _EXTERNAL + "get_groupmsg_list_v2"),
        ("POST", "read", _EXTERNAL + "get_groupmsg_task"),
        ("POST", "read", _EXTERNAL + "get_groupmsg_send_result"),
    ),
    "moment": (
        ("POST", "create", _EXTERNAL + "add_moment_task"),
        ("POST", "set", _EXTERNAL + "cancel_moment_task"),
        ("GET", "read", _EXTERNAL + "get_moment_task_result"),
        ("POST", "read", _EXTERNAL + "get_moment_list"),
        ("POST", "read", _EXTERNAL + "get_moment_task"),
        ("POST", "read", _EXTERNAL + "get_moment_customer_list"),
        ("POST", "read", _EXTERNAL + "get_moment_send_result"),
        ("POST", "read", _EXTERNAL + "get_moment_comments"),
    ),
    "transfer": (
        ("POST", "create", _EXTERNAL + "transfer_customer"),
        ("POST", "read", _EXTERNAL + "transfer_result"),
    ),
    "resigned_transfer": (
        ("POST", "create", _EXTERNAL + "resigned/transfer_customer"),
        ("POST", "read", _EXTERNAL + "resigned/transfer_result"),
        ("POST", "read", _EXTERNAL + "get_unassigned_list"),
    ),
    "group_chat": (
        ("POST", "create", _EXTERNAL + "groupchat/transfer"),
        ("POST", "create", _EXTERNAL + "groupchat/onjob_transfer"),
        ("POST", "read", _EXTERNAL + "groupchat/list"),
        ("POST", "read", _EXTERNAL + "groupchat/get"),
    ),
    "contact_way": (
        ("POST", "create", _EXTERNAL + "add_contact_way"),
        ("POST", "read", _EXTERNAL + "get_contact_way"),
        ("POST", "read", _EXTERNAL + "list_contact_way"),
    ),
    "tag": (
        ("POST", "create", _EXTERNAL + "add_corp_tag"),
        ("POST", "set", _EXTERNAL + "edit_corp_tag"),
        ("POST", "read", _EXTERNAL + "get_corp_tag_list"),
    ),
}

_ALONE: tuple[tuple[Literal["GET", "POST"], Repeat, str], ...] = (
    ("POST", "once", _EXTERNAL + "send_welcome_msg"),
    ("POST", "set", _EXTERNAL + "remark"),
    ("POST", "set", _EXTERNAL + "mark_tag"),
    ("POST", "set", _EXTERNAL + "close_temp_chat"),
    ("POST", "create", "message/send"),
    ("GET", "read", _EXTERNAL + "get_follow_user_list"),
    ("GET", "read", _EXTERNAL + "list"),
    ("GET", "read", _EXTERNAL + "get"),
    ("GET", "read", _EXTERNAL + "customer_acquisition_quota"),
    ("GET", "read", "getcallbackip"),
    ("GET", "read", "get_api_domain_ip"),
    ("POST", "read", _EXTERNAL + "batch/get_by_user"),
    ("POST", "read", _EXTERNAL + "contact_list"),
    ("POST", "read", _EXTERNAL + "get_user_behavior_data"),
    ("POST", "read", _EXTERNAL + "groupchat/statistic"),
    ("POST", "read", _EXTERNAL + "groupchat/statistic_group_by_day"),
    ("POST", "read", _EXTERNAL + "customer_acquisition/list_link"),
    ("POST", "read", _EXTERNAL + "customer_acquisition/get"),
    ("POST", "read", _EXTERNAL + "customer_acquisition/customer"),
    ("POST", "read", _EXTERNAL + "customer_acquisition/statistic"),
    ("POST", "read", "externalpay/get_bill_list"),
    ("POST", "read", "externalpay/get_payment_info"),
    ("POST", "read", "externalpay/get_fund_flow"),
    ("POST", "read", "externalpay/getmerchant"),
)


def _allow_list() -> Mapping[str, Endpoint]:
    grouped = [Endpoint(p, m, r, group) for group, members in _GROUPS.items() for m, r, p in members]
    alone = [Endpoint(p, m, r, p) for m, r, p in _ALONE]
    return MappingProxyType({endpoint.path: endpoint for endpoint in (*grouped, *alone)})


ENDPOINTS: Mapping[str, Endpoint] = _allow_list()
"""Every endpoint an action may name. ``gettoken`` is not among them: tokens have one owner."""


TOUCHING: frozenset[str] = frozenset({_EXTERNAL + "send_welcome_msg", _EXTERNAL + "add_msg_template"})
"""Calls that put a message before customers named in them: suppressed people are kept out of these."""


def quota_scope(corp_id: str, endpoint: str) -> str:
    """Key of actions: the corp and the endpoint's group. An endpoint nobody knows is a group of its own, so that its
    action reaches an executor and is refused there."""
    known = ENDPOINTS.get(endpoint)
    return f"{corp_id}|{known.group if known else endpoint}"
