"""WeCom's error codes as data: every code the platform documents has one rule, and an unknown code is never retried.

The table is ``schemas/rules/wecom-errors.yaml``: dated versions, per-endpoint overrides. It is validated whole when
it is loaded; a code that stands twice, an unknown endpoint or a rule that contradicts itself stops the load.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from siyu.ops.dated import ByDate, by_date, load_yaml
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN

ErrorAction = Literal["ok", "retry", "token", "wait", "slow", "state", "fix", "human"]
RuleStatus = Literal["already_done", "expired", "rejected", "failed"]

_ENDS: dict[ErrorAction, tuple[RuleStatus, str]] = {
    "retry": ("failed", "retries_used_up"),
    "slow": ("failed", "retries_used_up"),
    "token": ("failed", "token_refused"),
    "state": ("rejected", "refused"),
    "fix": ("failed", "fix_needed"),
    "human": ("failed", "human_needed"),
}


class ErrorTableError(ValueError):
    """An error table that cannot be used; the message names the place."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one code means and gets. Times in ms."""

    code: int
    meaning: str
    action: ErrorAction
    status: RuleStatus
    """How the action ends when the code is final."""
    detail: str
    tries: int
    """Calls in all under ``retry`` and ``slow``."""
    delay_ms: int
    delay_max_ms: int
    """Upper end of a random delay (``slow``)."""
    wait_ms: int
    """Under ``wait``: how long; 0: until the scope's window ends."""
    young_ms: int
    """An action younger than this gets one more try."""
    until_deadline: bool
    """``retry``: as long as the action's deadline allows, instead of counting tries."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    codes: list[int | str]
    action: ErrorAction
    meaning: str
    endpoint: str = ""
    note: str = ""
    confidence: str = ""
    status: RuleStatus | None = None
    detail: str = ""
    tries: int = 0
    delay_ms: int = 0
    wait_ms: int = 0
    young_ms: int = 0
    until_deadline: bool = False


class _Default(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tries: int
    delay_ms: int
    delay_max_ms: int = 0


class _Version(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    effective_from: datetime.date
    source: str
    confidence: str
    defaults: dict[Literal["retry", "slow"], _Default]
    codes: list[_Entry]
    overrides: list[_Entry]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    versions: list[_Version]


class ErrorTable:
    """One version of the table."""

    def __init__(self, version: str, rules: dict[int, Rule], overrides: dict[tuple[int, str], Rule]) -> None:
        self.version = version
        self._rules = rules
        self._overrides = overrides

    @property
    def codes(self) -> frozenset[int]:
        """Every code that has a rule."""
        return frozenset(self._rules)

    def rule(self, errcode: int, endpoint: str) -> Rule:
        """The rule for a code at an endpoint. A code nobody documented is a bug of ours or news: never retried."""
        override = self._overrides.get((errcode, endpoint))
        if override is not None:
            return override
        known = self._rules.get(errcode)
        return known if known is not None else _unknown(errcode)


ErrorTables = ByDate[ErrorTable]
"""All versions, by wall time."""


def load_error_tables(path: Path) -> ErrorTables:
    """Reads and validates the file. Raises ErrorTableError."""
    file = load_yaml(path, "error table", _File, ErrorTableError)
    tables = [(version.effective_from, _table(path, version)) for version in file.versions]
    return by_date(f"error table {path}", tables, ErrorTableError)


def _table(path: Path, version: _Version) -> ErrorTable:
    where = f"error table {path}, version {version.version}"
    rules: dict[int, Rule] = {}
    overrides: dict[tuple[int, str], Rule] = {}
    for entry in version.codes:
        if entry.endpoint:
            raise ErrorTableError(f"{where}: codes {entry.codes}: an endpoint belongs under overrides")
        for code in _expand(where, entry):
            if code in rules:
                raise ErrorTableError(f"{where}: code {code} stands twice")
            rules[code] = _rule(where, version, code, entry)
    for entry in version.overrides:
        if entry.endpoint not in ENDPOINTS and entry.endpoint != GETTOKEN:
            raise ErrorTableError(f"{where}: override of {entry.codes} names the unknown endpoint {entry.endpoint!r}")
        for code in _expand(where, entry):
            if code not in rules or (code, entry.endpoint) in overrides:
                raise ErrorTableError(f"{where}: override of {code} at {entry.endpoint} has no code or stands twice")
            overrides[code, entry.endpoint] = _rule(where, version, code, entry)
    if 0 not in rules or any((rule.action == "ok") != (code == 0) for code, rule in rules.items()):
        raise ErrorTableError(f"{where}: 0 and only 0 is ok")
    return ErrorTable(version.version, rules, overrides)


def _expand(where: str, entry: _Entry) -> Iterator[int]:
    for item in entry.codes:
        if isinstance(item, int):
            yield item
            continue
        first, _, last = item.partition("-")
        if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
            raise ErrorTableError(f"{where}: {item!r} is no range of codes")
        yield from range(int(first), int(last) + 1)


def _rule(where: str, version: _Version, code: int, entry: _Entry) -> Rule:
    default = version.defaults.get(entry.action) if entry.action in ("retry", "slow") else None
    if entry.action in ("retry", "slow") and default is None:
        raise ErrorTableError(f"{where}: no defaults for {entry.action}")
    if entry.wait_ms and entry.action != "wait":
        raise ErrorTableError(f"{where}: code {code}: wait_ms needs action wait")
    if entry.until_deadline and entry.action != "retry":
        raise ErrorTableError(f"{where}: code {code}: until_deadline needs action retry")
    if bool(entry.young_ms) and not (entry.action == "state" and entry.delay_ms > 0):
        raise ErrorTableError(f"{where}: code {code}: young_ms needs action state and a delay_ms")
    status, detail = _ENDS.get(entry.action, ("failed", ""))
    return Rule(
        code=code,
        meaning=entry.meaning,
        action=entry.action,
        status=entry.status or status,
        detail=entry.detail or detail,
        tries=entry.tries or (default.tries if default else 1),
        delay_ms=entry.delay_ms or (default.delay_ms if default else 0),
        delay_max_ms=default.delay_max_ms if default else 0,
        wait_ms=entry.wait_ms,
        young_ms=entry.young_ms,
        until_deadline=entry.until_deadline,
    )


def _unknown(code: int) -> Rule:
    return Rule(
        code=code,
        meaning="not documented",
        action="fix",
        status="failed",
        detail="unknown_errcode",
        tries=1,
        delay_ms=0,
        delay_max_ms=0,
        wait_ms=0,
        young_ms=0,
        until_deadline=False,
    )
