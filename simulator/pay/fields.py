"""Reads bodies and queries of WeChat Pay calls: whatever is missing, of a wrong type or out of range is PARAM_ERROR."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from simulator.pay.errors import PayError
from simulator.pay.times import parse_rfc3339

Body = Mapping[str, Any]

NUMBER = re.compile(r"[0-9A-Za-z_\-|*@]+")
"""Letters that merchants' own order and request numbers are made of."""
_OPENID = re.compile(r"o[0-9A-Za-z_\-]{27}")


def wrong(name: str, why: str) -> PayError:
    """The refusal of one field."""
    return PayError("PARAM_ERROR", f"{name}: {why}", {"location": "body", "field": name, "issue": why})


def text(body: Body, name: str, *, required: bool = False, most: int = 0, least: int = 0) -> str:
    """A string, empty when absent. ``least`` and ``most``: characters."""
    value = body.get(name)
    if value is None or value == "":
        if required:
            raise wrong(name, "is required")
        return ""
    if not isinstance(value, str):
        raise wrong(name, "is no string")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which is no text
        raise wrong(name, "is no text") from None
    if (most and len(value) > most) or len(value) < least:
        raise wrong(name, f"has {len(value)} characters, {least} to {most} are allowed")
    return value


def number_text(body: Body, name: str, *, most: int, least: int = 1, required: bool = True) -> str:
    """A merchant's own number of an order or request."""
    value = text(body, name, required=required, most=most, least=least)
    if value and not NUMBER.fullmatch(value):
        raise wrong(name, "holds letters that are not allowed")
    return value


def whole(body: Body, name: str, *, default: int | None = None, least: int = 0, most: int = 1 << 53) -> int:
    """A whole number; required without a default."""
    value = body.get(name, default)
    if value is None:
        raise wrong(name, "is required")
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(name, "is no whole number")
    if not least <= value <= most:
        raise wrong(name, f"is not between {least} and {most}")
    return value


def flag(body: Body, name: str, *, default: bool | None = None) -> bool:
    """A boolean; required without a default."""
    value = body.get(name, default)
    if value is None:
        raise wrong(name, "is required")
    if not isinstance(value, bool):
        raise wrong(name, "is no boolean")
    return value


def obj(body: Body, name: str, *, required: bool = False) -> dict[str, Any]:
    """An object, empty when absent."""
    value = body.get(name)
    if value is None:
        if required:
            raise wrong(name, "is required")
        return {}
    if not isinstance(value, dict):
        raise wrong(name, "is no object")
    return value


def texts(body: Body, name: str, *, required: bool = False, most: int = 0, chars: int = 0) -> list[str]:
    """A list of non-empty strings in order, repeated ones once."""
    value = body.get(name)
    if value is None:
        value = []
    if not isinstance(value, list):
        raise wrong(name, "is no list")
    if required and not value:
        raise wrong(name, "is required")
    if most and len(value) > most:
        raise wrong(name, f"has more than {most} entries")
    return list(dict.fromkeys(text({name: item}, name, required=True, most=chars) for item in value))


def objects(body: Body, name: str, *, least: int = 0, most: int = 0) -> list[dict[str, Any]]:
    """A list of objects."""
    value = body.get(name)
    if value is None:
        value = []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(name, "is no list of objects")
    if len(value) < least or (most and len(value) > most):
        raise wrong(name, f"needs {least} to {most} entries")
    return value


def moment(body: Body, name: str, *, required: bool = True) -> int:
    """An RFC 3339 time in epoch seconds; 0 when absent."""
    value = text(body, name, required=required, most=64)
    if not value:
        return 0
    parsed = parse_rfc3339(value)
    if parsed is None:
        raise wrong(name, "is no RFC 3339 time with its zone")
    return parsed


def choice(body: Body, name: str, choices: frozenset[str], *, default: str = "") -> str:
    """One of some words; required without a default."""
    value = text(body, name, required=not default) or default
    if value not in choices:
        raise wrong(name, f"is none of {', '.join(sorted(choices))}")
    return value


def openid(value: str) -> str:
    """A person's id at an appid, as far as its form goes: whose it is nobody can tell from it."""
    if not _OPENID.fullmatch(value):
        raise wrong("openid", "is not a valid openid of this appid")
    return value


def page(query: Mapping[str, str], *, default: int, most: int) -> tuple[int, int]:
    """``offset`` (the page's number, from 0) and ``limit`` of a query."""
    return query_whole(query, "offset", default=0, most=1 << 31), query_whole(
        query, "limit", default=default, least=1, most=most
    )


def query_whole(query: Mapping[str, str], name: str, *, default: int, least: int = 0, most: int) -> int:
    """A whole number of a query."""
    value = query.get(name, "")
    if not value:
        return default
    # int() would take " 1", "1_0" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise wrong(name, "is no whole number")
    return whole({name: int(value)}, name, least=least, most=most)
