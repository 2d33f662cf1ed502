"""Calls that make something and may be sent again under the merchant's own number of the request. Pure."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from simulator.pay.errors import PayError


class Asked(Protocol):
    """Something a merchant's request made; ``asked`` is that request."""

    creator: str
    out_request_no: str
    asked: dict[str, Any]


Made = TypeVar("Made", bound=Asked)


def made_before(made: dict[tuple[str, str], Made], new: Made, noun: str) -> Made | None:
    """What the same request made before; None: nothing, and ``new`` is kept under its number.

    Raises PayError when the number made something else.
    """
    key = (new.creator, new.out_request_no)
    known = made.get(key)
    if known is None:
        made[key] = new
    elif known.asked != new.asked:
        raise PayError("RESOURCE_ALREADY_EXISTS", f"out_request_no was used for another {noun}")
    return known
