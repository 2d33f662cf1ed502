"""Ids and keys. An event id is a hash of the meaning, not of the delivery (design §7): a repeat has the same id, two
customers who scan one code in the same second do not."""

from __future__ import annotations

import hashlib


def stable_id(*parts: str | int) -> str:
    """128 bits of SHA-256 over the parts, as 32 hex digits; length-prefixed, so no two lists collide by joining."""
    canonical = "".join(f"{len(text)}:{text}" for text in map(str, parts))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def contact_event_id(
    corp_id: str,
    change: str,
    staff_id: str,
    customer_id: str,
    event_time_ms: int,
    state: str,
    welcome_code: str,
) -> str:
    """Id of a contact event (fact sheet 1.8: sender and time alone lose real customers)."""
    return stable_id("contact", corp_id, change, staff_id, customer_id, event_time_ms, state, welcome_code)


def payment_event_id(corp_id: str, change: str, order_id: str, refund_id: str) -> str:
    """Id of a payment or refund: the bill's own numbers, whichever source reported it."""
    return stable_id("payment", corp_id, change, order_id, refund_id)


def raw_event_id(corp_id: str, plaintext: bytes) -> str:
    """Id of a callback no type knows: the decrypted message itself (never the envelope, whose nonce changes)."""
    return stable_id("raw", corp_id, hashlib.sha256(plaintext).hexdigest())


def customer_key(corp_id: str, customer_id: str) -> str:
    """Key of everything that concerns one customer."""
    return f"{corp_id}|{customer_id}"


def unknown_customer_key(corp_id: str, order_id: str) -> str:
    """Key of an order whose payer nobody knows; its refunds carry the same order id and meet it here."""
    return f"{corp_id}|~{order_id}"


def staff_key(corp_id: str, staff_id: str) -> str:
    """Key of everything that concerns one staff member; an empty ``staff_id`` is the row of uncredited sales."""
    return f"{corp_id}|{staff_id}"
