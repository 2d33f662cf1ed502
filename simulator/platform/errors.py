"""How the platform says no: HTTP 200 with errcode, errmsg and empty payload arrays (fact sheet 3)."""

from __future__ import annotations

import hashlib
from typing import Any

TEXTS: dict[int, str] = {
    0: "ok",
    40001: "invalid credential",
    40013: "invalid corpid",
    40014: "invalid access_token",
    40031: "invalid userid list",
    40035: "invalid parameter",
    40058: "missing required parameter",
    40096: "invalid external userid",
    40206: "request body too large",
    41001: "access_token missing",
    41002: "corpid missing",
    41004: "corpsecret missing",
    41035: "missing external userid",
    41050: "invalid welcome code",
    41051: "externaluser has started chatting",
    41064: "invalid attachment count",
    41065: "invalid attachment msgtype",
    41088: "attachments empty",
    41089: "neither text nor attachment",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    45002: "content size out of limit",
    45009: "reach max api frequency limit",
    45033: "api concurrent out of limit",
    48002: "api forbidden",
    50100: "invalid cursor",
    60111: "userid not found",
    84061: "not external contact",
}
"""Every errcode this stand-in gives. 41002, 41004, 43001 and 43002 are known of the platform but not in the sheet."""

WRONG_FORMAT = "Warning: wrong json format. "
"""What the platform adds to errmsg when JSON or a type in it is wrong (fact sheet 3)."""


class ApiError(Exception):
    """An answer other than success. ``empties``: payload fields that the error body still carries."""

    def __init__(self, errcode: int, *, empties: dict[str, Any] | None = None, wrong_format: bool = False) -> None:
        super().__init__(str(errcode))
        self.errcode = errcode
        self.empties = empties or {}
        self.wrong_format = wrong_format


def error_body(error: ApiError, *, serial: int, time_s: int, ip: str) -> dict[str, Any]:
    """The JSON of an error; ``serial`` and ``time_s`` make the hint, which support would ask for."""
    code = error.errcode
    hint = f"{time_s}{int.from_bytes(hashlib.blake2b(str(serial).encode(), digest_size=6).digest(), 'big'):015d}"[:25]
    text = (
        f"{WRONG_FORMAT if error.wrong_format else ''}{TEXTS[code]}, hint: [{hint}], from ip: {ip}, "
        f"more info at https://open.work.weixin.qq.com/devtool/query?e={code}"
    )
    return {"errcode": code, "errmsg": text, **error.empties}
