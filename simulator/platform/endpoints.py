"""The endpoints' rules: a validated request and the state of the world in, an answer or an errcode out. No network.

Everything under ``/cgi-bin`` that is not here is refused loudly: the platform has no call to delete a contact, to add a
friend or to write to a customer directly, and neither has this stand-in (fact sheet 6, point 22).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simulator.bills import BillBook, Position
from simulator.platform.errors import ApiError
from simulator.platform.welcomes import Welcomes
from simulator.world import Relationship, World

_MONTH_S = 31 * 86_400
_MAX_TEXT_BYTES = 4_000
_MAX_ATTACHMENTS = 9
_MAX_BILLS = 1_000
_SHORT_TEXTS = {("link", "title"): 128, ("link", "desc"): 512, ("miniprogram", "title"): 64}
_REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    # Each tuple: one of these has to be there.
    "image": (("media_id", "pic_url"),),
    "link": (("title",), ("url",)),
    "miniprogram": (("title",), ("pic_media_id",), ("appid",), ("page",)),
    "video": (("media_id",),),
    "file": (("media_id",),),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised call. ``now_ms`` is business time, ``wall_s`` wall time."""

    corp_id: str
    query: Mapping[str, str]
    body: dict[str, Any]
    now_ms: int
    wall_s: float


class Endpoints:
    """What can be asked of the world."""

    def __init__(
        self,
        *,
        world: World,
        staff: Mapping[str, tuple[str, ...]],
        customers: Mapping[str, frozenset[str]],
        bills: Mapping[str, BillBook],
        welcomes: Welcomes,
        cursor_ttl_s: int,
        seed: int,
    ) -> None:
        """``staff`` and ``customers``: who exists, by corp."""
        self._world = world
        self._staff = staff
        self._staff_sets = {corp_id: frozenset(ids) for corp_id, ids in staff.items()}
        self._customers = customers
        self._bills = bills
        self._welcomes = welcomes
        self._cursor_ttl_s = cursor_ttl_s
        self._cursor_key = hashlib.sha256(f"cursor|{seed}".encode()).digest()

    def table(self) -> dict[str, tuple[Literal["GET", "POST"], Callable[[Call], dict[str, Any]]]]:
        """Method and handler by path below ``/cgi-bin/``. ``gettoken`` is not here: it needs no token."""
        return {
            "externalcontact/send_welcome_msg": ("POST", self.send_welcome_msg),
            "externalcontact/get_follow_user_list": ("GET", self.get_follow_user_list),
            "externalcontact/list": ("GET", self.list_customers),
            "externalcontact/get": ("GET", self.get_customer),
            "externalpay/get_bill_list": ("POST", self.get_bill_list),
        }

    def get_follow_user_list(self, call: Call) -> dict[str, Any]:
        """Staff with 客户联系 (fact sheet 3.2)."""
        return {"follow_user": list(self._staff[call.corp_id])}

    def list_customers(self, call: Call) -> dict[str, Any]:
        """Customers of one staff member; none: 84061 with an empty list (fact sheet 3.2)."""
        empty: dict[str, Any] = {"external_userid": []}
        staff_id = call.query.get("userid", "")
        if not staff_id:
            raise ApiError(40058, empties=empty)
        if staff_id not in self._staff_sets[call.corp_id]:
            raise ApiError(60111, empties=empty)
        customers = self._world.customers_of(call.corp_id, staff_id)
        if not customers:
            raise ApiError(84061, empties=empty)
        return {"external_userid": customers}

    def get_customer(self, call: Call) -> dict[str, Any]:
        """One customer and who follows; only half-added or deleted by all staff: 84061 (fact sheet 3.2, 2.1)."""
        empty: dict[str, Any] = {"follow_user": []}
        customer_id = call.query.get("external_userid", "")
        if not customer_id:
            raise ApiError(41035, empties=empty)
        if customer_id not in self._customers[call.corp_id]:
            raise ApiError(40096, empties=empty)
        if call.query.get("cursor"):
            # Given out only past 500 followers, which nobody has here.
            raise ApiError(50100, empties=empty)
        followers = self._world.followers_of(call.corp_id, customer_id)
        if not followers:
            raise ApiError(84061, empties=empty)
        number = int.from_bytes(hashlib.blake2b(customer_id.encode(), digest_size=4).digest(), "big")
        return {
            "external_contact": {
                "external_userid": customer_id,
                "name": f"顾客{number % 100_000:05d}",
                "avatar": f"https://avatar.example/{number}",
                "type": 1,
                "gender": number % 3,
                "unionid": "oz" + hashlib.blake2b(customer_id.encode(), digest_size=13).hexdigest(),
            },
            "follow_user": [_follow_user(staff_id, customer_id, r) for staff_id, r in followers],
            "next_cursor": "",
        }

    def send_welcome_msg(self, call: Call) -> dict[str, Any]:
        """Delivers a welcome. A body that is refused does not use the code up (fact sheet 3.4)."""
        code = _text(call.body, "welcome_code", required=True)
        text = call.body.get("text")
        if text is not None:
            content = _text(_object(text), "content", required=True)
            if len(content.encode()) > _MAX_TEXT_BYTES:
                raise ApiError(45002)
        attachments = call.body.get("attachments")
        if attachments is not None:
            if not isinstance(attachments, list):
                raise ApiError(40035, wrong_format=True)
            if not attachments and text is None:
                raise ApiError(41088)
            if len(attachments) > _MAX_ATTACHMENTS:
                raise ApiError(41064)
            for attachment in attachments:
                _check_attachment(_object(attachment))
        elif text is None:
            raise ApiError(41089)
        self._welcomes.use(call.corp_id, code, call.now_ms)
        return {}

    def get_bill_list(self, call: Call) -> dict[str, Any]:
        """Collections and refunds of a window of at most a month (fact sheet 3.10).

        ``next_cursor`` is missing on the last page, and only there. ``limit`` 1 to 1000, default 1000.
        """
        empty: dict[str, Any] = {"bill_list": []}
        try:
            begin_s = _number(call.body, "begin_time")
            end_s = _number(call.body, "end_time")
            limit = _number(call.body, "limit", default=_MAX_BILLS)
            payee = _text(call.body, "payee_userid")
            cursor = _text(call.body, "cursor")
            if not 0 <= begin_s <= end_s or end_s - begin_s > _MONTH_S or not 1 <= limit <= _MAX_BILLS:
                raise ApiError(40035)
            if payee and payee not in self._staff_sets[call.corp_id]:
                raise ApiError(60111)
            scope = f"{call.corp_id}|{begin_s}|{end_s}|{payee}"
            after = self._read_cursor(cursor, scope, call.wall_s) if cursor else None
        except ApiError as error:
            raise ApiError(error.errcode, empties=empty, wrong_format=error.wrong_format) from None
        rows, position = self._bills[call.corp_id].page(
            now_ms=call.now_ms, begin_s=begin_s, end_s=end_s, after=after, limit=limit, payee=payee
        )
        answer: dict[str, Any] = {"bill_list": rows}
        if position is not None:
            answer["next_cursor"] = self._write_cursor(position, scope, call.wall_s)
        return answer

    def _write_cursor(self, position: Position, scope: str, wall_s: float) -> str:
        payload = json.dumps([int(wall_s) + self._cursor_ttl_s, *position]).encode()
        return base64.urlsafe_b64encode(self._seal(payload, scope) + payload).decode().rstrip("=")

    def _read_cursor(self, cursor: str, scope: str, wall_s: float) -> Position:
        """Raises ApiError 50100 for a cursor that is forged, of another window, or too old."""
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raise ApiError(50100) from None
        seal, payload = raw[:16], raw[16:]
        if not hmac.compare_digest(seal, self._seal(payload, scope)):
            raise ApiError(50100)
        expires, time_s, transaction_id = json.loads(payload)
        if wall_s > expires:
            raise ApiError(50100)
        return time_s, transaction_id

    def _seal(self, payload: bytes, scope: str) -> bytes:
        return hmac.digest(self._cursor_key, scope.encode("utf-8", "surrogatepass") + b"\x00" + payload, "sha256")[:16]


def _follow_user(staff_id: str, customer_id: str, relationship: Relationship) -> dict[str, Any]:
    episode = relationship.episodes[-1]
    shown: dict[str, Any] = {
        "userid": staff_id,
        "remark": "",
        "description": "",
        "createtime": episode.started_s,
        "tags": [],
        "remark_mobiles": [],
        "oper_userid": customer_id,
        "add_way": 1 if episode.channel else 0,
    }
    if episode.channel:
        shown["state"] = episode.channel
    return shown


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(40035, wrong_format=True)
    return value


def _text(body: dict[str, Any], name: str, *, required: bool = False) -> str:
    value = body.get(name)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise ApiError(40035, wrong_format=True)
    if required and not value:
        raise ApiError(40058)
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which is no text
        raise ApiError(40035, wrong_format=True) from None
    return value


def _number(body: dict[str, Any], name: str, *, default: int | None = None) -> int:
    value = body.get(name, default)
    if value is None:
        raise ApiError(40058)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ApiError(40035, wrong_format=True)
    return value


def _check_attachment(attachment: dict[str, Any]) -> None:
    kind = _text(attachment, "msgtype", required=True)
    if kind not in _REQUIRED:
        raise ApiError(41065)
    content = _object(attachment.get(kind, {}))
    for alternatives in _REQUIRED[kind]:
        if not any(_text(content, name) for name in alternatives):
            raise ApiError(40058)
    for (of_kind, name), limit in _SHORT_TEXTS.items():
        if of_kind == kind and len(_text(content, name).encode()) > limit:
            raise ApiError(45002)
