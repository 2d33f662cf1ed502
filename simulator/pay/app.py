"""``/v3/…``: WeChat Pay's interface as an ASGI application (fact sheet 3.15).

Every call is signed by its merchant and every answer by the platform. A refusal is a 4xx with ``code`` and ``message``:
401 SIGN_ERROR when the signature, its time or its serial is wrong. Never a 500 for bad input; an error of ours is a 500
SYSTEM_ERROR, logged and counted. Every call is recorded.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from simulator.pay import signing
from simulator.pay.calls import coupons, gifts, orders, vouchers
from simulator.pay.errors import PayError
from simulator.pay.files import PATH, Files
from simulator.pay.merchant import Merchant, MerchantCredentials, PlatformKeys, merchants_of
from simulator.pay.notify import PayNotifier
from simulator.pay.routes import File, PayCall, Table, Windows
from simulator.world.corp import CorpWorld
from siyu.ops.clock import wall_ms
from siyu.ops.logging import get_logger

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PREFIX = "/v3/"
TABLE = Table(orders.ROUTES, coupons.ROUTES, vouchers.ROUTES, gifts.ROUTES)

_FRESH_S = 300
"""A signature whose time is further away is refused."""
_BODY_LIMIT_BYTES = 1 << 20
_CALLS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class RecordedPayCall:
    """One call as it was answered. ``time_ms``: wall time of the arrival; ``business_ms``: what the clock said."""

    time_ms: int
    business_ms: int
    endpoint: str
    """Method and path with its parameters' names; ``unknown`` for a path that is none."""
    mchid: str
    status: int
    code: str
    """Empty for success."""


@dataclass(slots=True)
class _Caller:
    """What is known of a call when it is answered or refused."""

    endpoint: str = "unknown"
    mchid: str = ""
    public_key: bool = False
    """The caller named the WeChat Pay public key: answers are signed by it."""


class _Gone(Exception):
    """The caller left before the body was complete."""


class PayApp:
    """Answers calls."""

    def __init__(
        self,
        credentials: Iterable[MerchantCredentials],
        keys: PlatformKeys,
        notifier: PayNotifier,
        *,
        worlds: Callable[[], Mapping[str, CorpWorld]],
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
        signing_s: Callable[[], int] = lambda: wall_ms() // 1000,
    ) -> None:
        """``worlds``: the corps as they are now; ``now_ms``: business time; ``clock_s``: what limits live by;
        ``signing_s``: the second that signatures carry and are judged by (libraries use the time of their machine)."""
        self.merchants: dict[str, Merchant] = merchants_of(credentials, keys, notifier)
        self.keys = keys
        self.notifier = notifier
        self._worlds = worlds
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._signing_s = signing_s
        self._windows = Windows()
        self._serial = 0
        self._log = get_logger()
        self.calls: deque[RecordedPayCall] = deque(maxlen=_CALLS_KEPT)
        self.call_counts: Counter[tuple[str, int]] = Counter()
        """(endpoint, HTTP status) → calls."""
        self.broken = 0
        """Calls that ended in an error of ours."""

    def merchant_of(self, corp_id: str) -> Merchant | None:
        """The first merchant of a corp: where its customers pay."""
        return next((merchant for merchant in self.merchants.values() if merchant.corp_id == corp_id), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        if scope["type"] != "http":
            return
        arrived_ms, caller = wall_ms(), _Caller()
        status, code, file = 200, "", None
        try:
            answer = await self._answer(scope, receive, caller)
            if answer is None:
                status, content = 204, b""
            elif isinstance(answer, File):
                file, content = answer, answer.content
            else:
                content = msgspec.json.encode(answer)
        except PayError as error:
            status, code, content = error.status, error.code, msgspec.json.encode(error.body())
        except _Gone:
            return
        except Exception as error:
            self._log.error("pay call broke", endpoint=caller.endpoint, exc_info=error)
            self.broken += 1
            status, code = 500, "SYSTEM_ERROR"
            content = msgspec.json.encode(PayError(code, "system error").body())
        self.calls.append(RecordedPayCall(arrived_ms, self._now_ms(), caller.endpoint, caller.mchid, status, code))
        self.call_counts[caller.endpoint, status] += 1
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": self._headers(content, caller, file, status),
            }
        )
        await send({"type": "http.response.body", "body": content})

    def _headers(self, content: bytes, caller: _Caller, file: File | None, status: int) -> list[tuple[bytes, bytes]]:
        self._serial += 1
        nonce = signing.token("answer", self.keys.certificate_serial, self._serial)
        headers = {"Request-ID": nonce.upper(), "Content-Length": str(len(content))}
        if file is not None:
            headers["Content-Type"] = file.media_type  # files are told apart by their hash, not by a signature
        else:
            key, serial = self.keys.signer(public_key=caller.public_key)
            headers |= signing.signed_headers(key, serial, content, timestamp=self._signing_s(), nonce=nonce)
            if status != 204:
                headers["Content-Type"] = "application/json; charset=utf-8"
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def _answer(self, scope: Scope, receive: Receive, caller: _Caller) -> dict[str, Any] | File | None:
        # The path as it was sent: what is signed, and where a parameter may hold an encoded slash.
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
        raw_query = scope["query_string"].decode("latin-1")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = dict(parse_qsl(raw_query, keep_blank_values=True, errors="replace"))
        content = await _body(receive)
        if raw_path == PATH and headers.get("authorization", "").startswith("WECHATPAY2-FILE "):
            return self._file_by_auth(headers["authorization"], query, caller)
        merchant = self._merchant(scope["method"], raw_path, raw_query, headers, content, caller)
        if not headers.get("accept") or not headers.get("user-agent"):
            raise PayError("PARAM_ERROR", "the headers Accept and User-Agent are required")
        route, values = TABLE.find(scope["method"], raw_path)
        caller.endpoint = f"{route.method} {route.pattern}"
        corp = self._worlds().get(merchant.corp_id)
        if corp is None:
            raise PayError("MCH_NOT_EXISTS", "the merchant's corp does not exist")
        call = PayCall(
            merchant=merchant,
            merchants=self.merchants,
            corp=corp,
            path=values,
            query=query,
            body={} if route.method == "GET" else _json(content, headers),
            now_s=self._now_ms() // 1000,
            clock_s=self._clock_s(),
            windows=self._windows,
            base_url=f"{scope.get('scheme', 'http')}://{headers.get('host', 'api.mch.weixin.qq.com')}",
        )
        return route.handler(call)

    def _merchant(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Mapping[str, str],
        content: bytes,
        caller: _Caller,
    ) -> Merchant:
        """The merchant that signed the call. Raises PayError SIGN_ERROR."""
        caller.public_key = headers.get("wechatpay-serial", "") == self.keys.public_key_id
        try:
            given = signing.parse_authorization(headers.get("authorization", ""))
        except signing.BadAuthorization as error:
            raise PayError("SIGN_ERROR", f"Authorization: {error}") from None
        merchant = self.merchants.get(given.mchid)
        if merchant is None:
            raise PayError("SIGN_ERROR", "no such merchant")
        caller.mchid = merchant.mchid
        if given.serial.upper() != merchant.serial_no.upper():
            raise PayError("SIGN_ERROR", "serial_no is not that of the merchant's certificate")
        if not given.timestamp.isascii() or not given.timestamp.isdigit() or len(given.timestamp) > 12:
            raise PayError("SIGN_ERROR", "timestamp is no epoch second")
        if abs(self._signing_s() - int(given.timestamp)) > _FRESH_S:
            raise PayError("SIGN_ERROR", "timestamp is more than five minutes away")
        url = f"{raw_path}?{raw_query}" if raw_query else raw_path
        message = signing.lines(method, url.encode("latin-1"), given.timestamp, given.nonce.encode("latin-1"), content)
        if not signing.verify(merchant.verifier, message, given.signature):
            told = message.decode("utf-8", "replace")
            raise PayError(
                "SIGN_ERROR",
                "the signature is wrong",
                {
                    "field": "signature",
                    "location": "authorization",
                    "detail": {"issue": "sign not match"},
                    "sign_information": {
                        "method": method,
                        "url": url,
                        "truncated_sign_message": told[:120],
                        "sign_message_length": len(message),
                    },
                },
            )
        return merchant

    def _file_by_auth(self, authorization: str, query: Mapping[str, str], caller: _Caller) -> File:
        """A bill of WeCom's own orders: whoever asked for it was given the header beside the address."""
        caller.endpoint = f"GET {PATH}"
        for corp in self._worlds().values():
            stored = corp.of(Files).get(query.get("token", ""), self._now_ms() // 1000)
            if stored is not None and stored.auth and stored.auth == authorization:
                return File(stored.content)
        raise PayError("NO_AUTH", "the address is not valid, or no longer")


async def _body(receive: Receive) -> bytes:
    content = bytearray()
    while True:
        part = await receive()
        if part["type"] == "http.disconnect":
            raise _Gone
        content += part.get("body", b"")
        if len(content) > _BODY_LIMIT_BYTES:
            raise PayError("PARAM_ERROR", "the body is larger than 1 MiB")
        if not part.get("more_body"):
            return bytes(content)


def _json(content: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The body as an object, empty when there is none."""
    if not content:
        return {}
    if not headers.get("content-type", "").lower().startswith("application/json"):
        raise PayError("PARAM_ERROR", "the Content-Type is not application/json")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise PayError("PARAM_ERROR", "the body is no JSON") from None
    if not isinstance(body, dict):
        raise PayError("PARAM_ERROR", "the body is no JSON object")
    return body
