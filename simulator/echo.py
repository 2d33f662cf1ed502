"""Asks a callback URL what the admin console asks before it saves a configuration (fact sheet 1.2)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from simulator.apps import App
from simulator.sender import Answer, BadUrl, Sender, Target
from siyu.ops.clock import wall_ms
from siyu.wecom.crypto import CallbackCrypto

LIMIT_S = 1.0
"""Wall time for the answer."""
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Verified:
    """What the console would say about one app's URL. ``problem`` is empty when it would save the configuration."""

    corp_id: str
    agent_id: str
    url: str
    problem: str
    took_ms: int

    @property
    def saved(self) -> bool:
        return not self.problem


async def verify_url(app: App, sender: Sender, *, limit_s: float = LIMIT_S) -> Verified:
    """Sends the GET with an encrypted ``echostr``; only its bare plaintext, with status 200 and in time, will do.

    Raises BadKey for an app whose token or key no configuration can have.
    """
    # 19 digits, as in the samples.
    echo = str(10**18 + int.from_bytes(os.urandom(8)) % (9 * 10**18))
    nonce = str(10**9 + int.from_bytes(os.urandom(8)) % (9 * 10**9))
    crypto = CallbackCrypto(app.callback_token, app.callback_aes_key, app.corp_id)
    sealed = crypto.encrypt(echo.encode(), timestamp=str(wall_ms() // 1000), nonce=nonce)
    query = (
        f"msg_signature={sealed.msg_signature}&timestamp={sealed.timestamp}&nonce={nonce}"
        f"&echostr={quote(sealed.encrypt, safe='')}"
    )
    began = time.monotonic()
    try:
        answer = await sender.get(Target(app.callback_url), query, timeout_s=limit_s)
        problem = _problem(answer, echo.encode(), limit_s)
    except BadUrl as error:
        problem = str(error)
    took_ms = round((time.monotonic() - began) * 1000)
    return Verified(app.corp_id, app.agent_id, app.callback_url, problem, took_ms)


def verify_urls(apps: Iterable[App]) -> list[Verified]:
    """All apps that have a URL, one after the other. For callers outside an event loop."""

    async def ask() -> list[Verified]:
        sender = Sender(concurrency=1)
        try:
            return [await verify_url(app, sender) for app in apps if app.callback_url]
        finally:
            await sender.close()

    return asyncio.run(ask())


def _problem(answer: Answer, echo: bytes, limit_s: float) -> str:
    if answer.failure == "timeout":
        return f"no answer within {limit_s:g} s"
    if answer.failure == "unreachable":
        return "no connection: is it listening, and is the address right?"
    if answer.failure:
        return "the connection ended before a whole HTTP answer"
    if answer.status != 200:
        return f"status {answer.status}: 200 is needed (is the token, the key or the corp id another one?)"
    body = answer.body
    if body == echo:
        return ""
    if body == _MARK + echo:
        return "a byte order mark stands before the text"
    if body.strip() == echo:
        return "white space or a line break stands around the text"
    if body.strip().strip(b"\"'") == echo:
        return "quotation marks stand around the text"
    return f"another text than the decrypted echostr ({len(body)} bytes)" if body else "an empty body"
