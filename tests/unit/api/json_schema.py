"""Checks a value against the JSON Schema 2020-12 that our OpenAPI document uses; a keyword nobody knows is an error, so
nothing in the document goes unchecked."""

from __future__ import annotations

import re
from typing import Any

_NOTES = {"title", "description", "default"}
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


class Mismatch(AssertionError):
    """The value is not what the schema says."""


def check(value: Any, schema: dict[str, Any], root: dict[str, Any], place: str = "$") -> None:
    """Raises Mismatch, or KeyError for a reference into nowhere."""
    for keyword, wanted in schema.items():
        if keyword in _NOTES:
            continue
        if keyword == "$ref":
            check(value, resolve(wanted, root), root, place)
        elif keyword == "anyOf":
            _any_of(value, wanted, root, place)
        elif keyword == "type":
            right = isinstance(value, _TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
            _hold(right, place, f"is no {wanted}")
        elif keyword == "enum":
            _hold(value in wanted, place, f"is none of {wanted}")
        elif keyword == "properties":
            for name, of in wanted.items():
                if name in value:
                    check(value[name], of, root, f"{place}.{name}")
        elif keyword == "required":
            _hold(set(wanted) <= set(value), place, f"lacks one of {wanted}")
        elif keyword == "additionalProperties":
            for name in set(value) - set(schema.get("properties", ())):
                _hold(wanted is not False, place, f"has a field nobody declared: {name}")
                check(value[name], wanted, root, f"{place}.{name}")
        elif keyword == "items":
            for number, item in enumerate(value):
                check(item, wanted, root, f"{place}[{number}]")
        elif keyword == "minimum":
            _hold(value >= wanted, place, "is too small")
        elif keyword == "maximum":
            _hold(value <= wanted, place, "is too large")
        elif keyword == "minLength":
            _hold(len(value) >= wanted, place, "is too short")
        elif keyword == "maxLength":
            _hold(len(value) <= wanted, place, "is too long")
        elif keyword == "pattern":
            _hold(re.search(wanted, value) is not None, place, f"does not fit {wanted}")
        else:
            raise Mismatch(f"keyword {keyword} at {place}: teach it to this checker")


def resolve(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    """``#/components/schemas/X`` → the schema."""
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


def _any_of(value: Any, schemas: list[dict[str, Any]], root: dict[str, Any], place: str) -> None:
    for schema in schemas:
        try:
            check(value, schema, root, place)
        except (Mismatch, TypeError):
            continue
        return
    raise Mismatch(f"{place} fits none of its schemas")


def _hold(right: bool, place: str, what: str) -> None:
    if not right:
        raise Mismatch(f"{place} {what}")
