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
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx2
import msgspec

from siyu.wecom.endpoints import GETTOKEN, Endpoint

# It prints whole URLs at level INFO, and with them the access token and the app secret.
logging.getLogger("httpx2").setLevel(logging.WARNING)

MAX_RESPONSE_BYTES = 7 << 20
"""An answer travels in an outcome, whose topic takes 8 MiB; a page of 1000 bills is about 1 MiB."""


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
