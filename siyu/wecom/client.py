"""The HTTP side of WeCom: documented endpoints only, and every call ends in a typed result that says what may have
happened.

    Answer     WeCom answered; ``errcode`` says how (fact: HTTP status is 200 even on business errors)
    TooLarge   WeCom answered, with more than we are willing to hold
    NotSent    no byte of the request left this machine: repeating it is safe for every endpoint
    Unknown    the request may have been carried out: repeat it only where a repeat is harmless

Nothing here raises for a remote failure, retries, or logs. The access token travels in the query string, as WeCom
wants it, so no URL may ever be logged: httpx2's own request log is switched off below.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import httpx2
import msgspec

# It prints whole URLs at level INFO, and with them the access token and the app secret.
logging.getLogger("httpx2").setLevel(logging.WARNING)

GETTOKEN = "gettoken"
MAX_RESPONSE_BYTES = 7 << 20
"""An answer travels in an outcome, whose topic takes 8 MiB; a page of 1000 bills is about 1 MiB."""


@dataclass(frozen=True)
class Endpoint:
    """One documented call. ``path`` is below the base URL."""

    path: str
    method: Literal["GET", "POST"]
    effect: Literal["read", "write"]
    repeat_safe: bool
    """A second identical request changes nothing more: reads, absolute values, single-use codes."""


def _allow_list() -> Mapping[str, Endpoint]:
    reads = {
        "GET": (
            "externalcontact/get_follow_user_list",
            "externalcontact/list",
            "externalcontact/get",
            "externalcontact/get_moment_task_result",
            "externalcontact/customer_acquisition_quota",
            "getcallbackip",
            "get_api_domain_ip",
        ),
        "POST": (
            "externalcontact/batch/get_by_user",
            "externalcontact/contact_list",
            "externalcontact/get_corp_tag_list",
            "externalcontact/get_contact_way",
            "externalcontact/list_contact_way",
            "externalcontact/get_groupmsg_list_v2",
            "externalcontact/get_groupmsg_task",
            "externalcontact/get_groupmsg_send_result",
            "externalcontact/get_moment_list",
            "externalcontact/get_moment_task",
            "externalcontact/get_moment_customer_list",
            "externalcontact/get_moment_send_result",
            "externalcontact/get_moment_comments",
            "externalcontact/transfer_result",
            "externalcontact/get_unassigned_list",
            "externalcontact/resigned/transfer_result",
            "externalcontact/groupchat/list",
            "externalcontact/groupchat/get",
            "externalcontact/get_user_behavior_data",
            "externalcontact/groupchat/statistic",
            "externalcontact/groupchat/statistic_group_by_day",
            "externalcontact/customer_acquisition/list_link",
            "externalcontact/customer_acquisition/get",
            "externalcontact/customer_acquisition/customer",
            "externalcontact/customer_acquisition/statistic",
            "externalpay/get_bill_list",
            "externalpay/get_payment_info",
            "externalpay/get_fund_flow",
            "externalpay/getmerchant",
        ),
    }
    # True: absolute values, or a code that can be used once. False: every call makes something new.
    writes = {
        "externalcontact/send_welcome_msg": True,
        "externalcontact/remark": True,
        "externalcontact/mark_tag": True,
        "externalcontact/edit_corp_tag": True,
        "externalcontact/cancel_groupmsg_send": True,
        "externalcontact/cancel_moment_task": True,
        "externalcontact/close_temp_chat": True,
        "externalcontact/add_corp_tag": False,
        "externalcontact/add_contact_way": False,
        "externalcontact/add_msg_template": False,
        "externalcontact/remind_groupmsg_send": False,
        "externalcontact/add_moment_task": False,
        "externalcontact/transfer_customer": False,
        "externalcontact/resigned/transfer_customer": False,
        "externalcontact/groupchat/transfer": False,
        "externalcontact/groupchat/onjob_transfer": False,
        "message/send": False,
    }
    endpoints = [Endpoint(p, "GET", "read", True) for p in reads["GET"]]
    endpoints += [Endpoint(p, "POST", "read", True) for p in reads["POST"]]
    endpoints += [Endpoint(p, "POST", "write", repeat_safe) for p, repeat_safe in writes.items()]
    return MappingProxyType({endpoint.path: endpoint for endpoint in endpoints})


ENDPOINTS: Mapping[str, Endpoint] = _allow_list()
"""Every endpoint an action may name. ``gettoken`` is not among them: tokens have one owner. There is deliberately no
call that deletes a contact, adds a friend or writes to a customer in staff's name: WeCom documents none."""


@dataclass(frozen=True)
class Answer:
    """WeCom's answer. ``body`` is its JSON, byte for byte."""

    errcode: int
    body: bytes
    seconds: float


@dataclass(frozen=True)
class TooLarge:
    """An answer above the size we hold; asking again would bring the same."""

    seconds: float


@dataclass(frozen=True)
class NotSent:
    """No byte left: connection refused, name unknown, connecting timed out."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Unknown:
    """No usable answer, but the request may have been carried out. ``reason``: timeout, connection_broken, not_wecom or
    ``http_<status>``."""

    reason: str
    seconds: float


Result = Answer | TooLarge | NotSent | Unknown


class _Head(msgspec.Struct):
    """What every answer has. Absent errcode means success."""

    errcode: int = 0


_head = msgspec.json.Decoder(_Head)


class WecomClient:
    """Calls WeCom. One instance per process; close it with ``async with``."""

    def __init__(
        self, base_url: str, *, max_connections: int = 200, max_response_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        """``base_url`` ends in ``/cgi-bin``. Proxies are those of the environment's convention: none are taken."""
        self._base_url = base_url.rstrip("/")
        self._max_response_bytes = max_response_bytes
        self._http = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def call(self, endpoint: Endpoint, access_token: str, payload: bytes, timeout_seconds: float) -> Result:
        """One call. ``payload`` is a JSON object: the body of a POST, the parameters of a GET."""
        params = {"access_token": access_token}
        if endpoint.method == "GET":
            fields: dict[str, object] = msgspec.json.decode(payload, type=dict[str, object])
            params |= {name: str(value) for name, value in fields.items() if value is not None}
            return await self._request("GET", endpoint.path, params, None, timeout_seconds)
        return await self._request("POST", endpoint.path, params, payload, timeout_seconds)

    async def get_token(self, corp_id: str, secret: str, timeout_seconds: float) -> Result:
        """``gettoken``: for the owner of the tokens only."""
        return await self._request("GET", GETTOKEN, {"corpid": corp_id, "corpsecret": secret}, None, timeout_seconds)

    async def _request(
        self, method: str, path: str, params: dict[str, str], content: bytes | None, timeout_seconds: float
    ) -> Result:
        started = time.monotonic()
        # The sum over all reads counts, not the pause between two of them: a drip-feeding server must not hold a slot.
        ends = started + timeout_seconds
        try:
            async with self._http.stream(
                method,
                f"{self._base_url}/{path}",
                params=params,
                content=content,
                headers={"Content-Type": "application/json"} if content is not None else None,
                timeout=httpx2.Timeout(timeout_seconds),
            ) as response:
                if response.status_code != 200:
                    return Unknown(f"http_{response.status_code}", time.monotonic() - started)
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > self._max_response_bytes:
                        return TooLarge(time.monotonic() - started)
                    if time.monotonic() > ends:
                        return Unknown("timeout", time.monotonic() - started)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return NotSent(_REASONS[type(error)], time.monotonic() - started)
        except httpx2.TimeoutException:
            return Unknown("timeout", time.monotonic() - started)
        except (httpx2.TransportError, httpx2.DecodingError):
            return Unknown("connection_broken", time.monotonic() - started)
        seconds = time.monotonic() - started
        try:
            head = _head.decode(body)
        except msgspec.MsgspecError:
            return Unknown("not_wecom", seconds)
        return Answer(head.errcode, bytes(body), seconds)


_REASONS: dict[type[Exception], str] = {
    httpx2.ConnectError: "connection_refused",
    httpx2.ConnectTimeout: "connect_timeout",
    httpx2.PoolTimeout: "no_free_connection",
}
