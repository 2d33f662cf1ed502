"""How WeChat Pay says no: an HTTP status with ``{"code": …, "message": …}`` (fact sheet 3.15)."""

from __future__ import annotations

from typing import Any

STATUSES: dict[str, int] = {
    "PARAM_ERROR": 400,
    "INVALID_REQUEST": 400,
    "APPID_MCHID_NOT_MATCH": 400,
    "MCH_NOT_EXISTS": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "SIGN_ERROR": 401,
    "NO_AUTH": 403,
    "NOT_ENOUGH": 403,
    "REQUEST_BLOCKED": 403,
    "RULE_LIMIT": 403,
    "NOT_FOUND": 404,
    "ORDER_NOT_EXIST": 404,
    "RESOURCE_NOT_EXISTS": 404,
    "METHOD_NOT_ALLOWED": 405,
    "FREQUENCY_LIMITED": 429,
    "FREQUENCY_LIMIT_EXCEED": 429,
    "SYSTEM_ERROR": 500,
}
"""Code → HTTP status. The names are those of the public interface; which of them goes with which refusal the fact sheet
leaves open, so a handler gives the nearest."""


class PayError(Exception):
    """A refused call."""

    def __init__(self, code: str, message: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = STATUSES[code]
        self.message = message
        self.detail = detail

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        shown: dict[str, Any] = {"code": self.code, "message": self.message}
        return {**shown, "detail": self.detail} if self.detail else shown
