"""Reads request bodies as the platform does: a wrong type is 40035 with its warning, what is missing is 40058.

Every function takes the object and the field's name. ``code`` is what a missing or too long value gets where the fact
sheet names a code of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.platform.errors import ApiError

Body = Mapping[str, Any]


def text(
    body: Body,
    name: str,
    *,
    required: bool = False,
    missing: int = 40058,
    max_chars: int = 0,
    max_bytes: int = 0,
    too_long: int = 40035,
) -> str:
    """A string, empty when absent. 0 means no limit of length."""
    value = body.get(name)
    if value is None:
        value = ""
    value = _string(value)
    if required and not value:
        raise ApiError(missing)
    if (max_chars and len(value) > max_chars) or (max_bytes and len(value.encode()) > max_bytes):
        raise ApiError(too_long)
    return value


def whole(
    body: Body,
    name: str,
    *,
    default: int | None = None,
    least: int | None = None,
    most: int | None = None,
    missing: int = 40058,
    code: int = 40035,
) -> int:
    """A whole number; absent and without default: ``missing``; out of range: ``code``."""
    value = body.get(name, default)
    if value is None:
        raise ApiError(missing)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ApiError(40035, wrong_format=True)
    if (least is not None and value < least) or (most is not None and value > most):
        raise ApiError(code)
    return value


def clipped(body: Body, name: str, *, default: int, most: int) -> int:
    """A page size that the platform cuts down to ``most`` instead of refusing it; below 1 it is ``default``."""
    value = whole(body, name, default=default)
    return min(value, most) if value >= 1 else default


def flag(body: Body, name: str, *, default: bool = False) -> bool:
    """A boolean; 0 and 1 count as such."""
    value = body.get(name)
    if value is None:
        return default
    if value in (0, 1):  # True and False are equal to them
        return bool(value)
    raise ApiError(40035, wrong_format=True)


def texts(
    body: Body, name: str, *, required: bool = False, most: int = 0, missing: int = 40058, too_many: int = 40032
) -> list[str]:
    """A list of non-empty strings, empty when absent, in order, repeated ones once."""
    found = [_string(item) for item in _items(body, name, required, most, missing, too_many)]
    if not all(found):
        raise ApiError(40035)
    return list(dict.fromkeys(found))


def wholes(body: Body, name: str, *, most: int = 0, too_many: int = 40032) -> list[int]:
    """A list of whole numbers, empty when absent."""
    return [whole({"item": item}, "item") for item in _items(body, name, False, most, 40058, too_many)]


def obj(body: Body, name: str, *, required: bool = False, missing: int = 40058) -> dict[str, Any]:
    """An object, empty when absent."""
    value = body.get(name)
    if value is None:
        if required:
            raise ApiError(missing)
        return {}
    return as_object(value)


def objects(
    body: Body, name: str, *, required: bool = False, most: int = 0, missing: int = 40058, too_many: int = 40032
) -> list[dict[str, Any]]:
    """A list of objects, empty when absent."""
    return [as_object(item) for item in _items(body, name, required, most, missing, too_many)]


def as_object(value: object) -> dict[str, Any]:
    """The value, if it is an object."""
    if not isinstance(value, dict):
        raise ApiError(40035, wrong_format=True)
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ApiError(40035, wrong_format=True)
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which is no text
        raise ApiError(40035, wrong_format=True) from None
    return value


def _items(body: Body, name: str, required: bool, most: int, missing: int, too_many: int) -> list[object]:
    value = body.get(name)
    if value is None:
        value = []
    if not isinstance(value, list):
        raise ApiError(40035, wrong_format=True)
    if required and not value:
        raise ApiError(missing)
    if most and len(value) > most:
        raise ApiError(too_many)
    return value
