"""What a request is worth, decided from its parts alone: an echo, a callback to append, or a refusal with a reason.

The order of checks is fixed: parameters, envelope, signature, ciphertext, age, markup. So an answer about a message's
inside is given only to somebody who knows the token.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs

from siyu.wecom.callbacks import Callback, parse_envelope, parse_message
from siyu.wecom.crypto import CallbackCrypto, Refused

# Exactly ten digits: the signature covers a plain concatenation, so a length that may vary would let a digit of the
# nonce or the ciphertext be passed off as one of the timestamp, and an old callback as a fresh one.
_TIMESTAMP = re.compile(r"[1-9][0-9]{9}")
_MAX_PARAMETERS = 32

STATUS: dict[str, int] = {
    "bad_query": 400,
    "bad_envelope": 400,
    "forbidden_markup": 400,
    "bad_base64": 400,
    "bad_ciphertext": 400,
    "bad_padding": 400,
    "bad_length": 400,
    "bad_signature": 403,
    "wrong_receive_id": 403,
    "stale_timestamp": 403,
    "no_such_path": 404,
    "unknown_corp": 404,
    "wrong_method": 405,
    "body_too_slow": 408,
    "body_too_large": 413,
}
"""Every reason for a refusal, and its HTTP status."""


class BadQuery(Refused):
    """A parameter is missing, given twice or malformed."""

    reason = "bad_query"


class StaleTimestamp(Refused):
    """Genuine, but too far from now: a replay, or a clock that is wrong."""

    reason = "stale_timestamp"


class Endpoint(NamedTuple):
    """One corp's callback URL."""

    corp_id: str
    crypto: CallbackCrypto
    max_age_seconds: int
    """0: any age."""


def verify_url(endpoint: Endpoint, query: bytes, wall_ms: int) -> bytes:
    """The body that answers a URL verification (fact sheet 1.2). Raises Refused."""
    signature, timestamp, nonce, echostr = _parameters(query, "msg_signature", "timestamp", "nonce", "echostr")
    echo = endpoint.crypto.decrypt(signature, timestamp, nonce, echostr)
    _check_age(endpoint, timestamp, wall_ms)
    return echo


def receive(endpoint: Endpoint, query: bytes, body: bytes, wall_ms: int) -> Callback:
    """The callback behind a delivery (fact sheet 1.3), which arrived at ``wall_ms``. Raises Refused."""
    signature, timestamp, nonce = _parameters(query, "msg_signature", "timestamp", "nonce")
    envelope = parse_envelope(body)
    message = endpoint.crypto.decrypt(signature, timestamp, nonce, envelope.encrypted)
    _check_age(endpoint, timestamp, wall_ms)
    return parse_message(
        endpoint.corp_id,
        message,
        agent_id=envelope.agent_id,
        received_at_ms=wall_ms,
        envelope_time_ms=int(timestamp) * 1000,
    )


def _parameters(query: bytes, *names: str) -> list[str]:
    try:
        given = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise BadQuery from None
    values = []
    for name in names:
        value = given.get(name, [])
        if len(value) != 1 or (name == "timestamp" and not _TIMESTAMP.fullmatch(value[0])):
            raise BadQuery
        values.append(value[0])
    return values


def _check_age(endpoint: Endpoint, timestamp: str, wall_ms: int) -> None:
    window_ms = endpoint.max_age_seconds * 1000
    if window_ms and abs(wall_ms - int(timestamp) * 1000) > window_ms:
        raise StaleTimestamp
