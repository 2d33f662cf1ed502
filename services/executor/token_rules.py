"""When tokens are renewed, as dated data: ``schemas/rules/tokens.yaml``, validated whole when it is loaded."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec

from siyu.ops.dated import ByDate, by_date, load_yaml


class TokenRulesError(ValueError):
    """A file of token rules that cannot be used; the message names the place."""


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Backoff(_Data, frozen=True, kw_only=True):
    """Doubled from time to time (wall ms)."""

    first_ms: int
    longest_ms: int

    def after(self, times: int) -> int:
        """The wait (ms) after the ``times``-th time in a row, counted from 1."""
        return min(self.longest_ms, self.first_ms << min(times - 1, 30))


class TokenRules(_Data, frozen=True, kw_only=True):
    """One version; the file says what each line is for."""

    version: str
    effective_from: datetime.date
    source: str
    confidence: str
    renew_after_percent: int
    between_ms: int
    young_ms: int
    young: Backoff
    unanswered: Backoff
    refused: Backoff
    limited: Backoff
    seen_within_ms: int
    report_again_ms: int


class _File(_Data, frozen=True, kw_only=True):
    versions: list[TokenRules]


TokenRulesByDate = ByDate[TokenRules]
"""All versions, by wall time."""


def load_token_rules(path: Path) -> TokenRulesByDate:
    """Reads and validates the file. Raises TokenRulesError."""
    file = load_yaml(path, "token rules", _File, TokenRulesError)
    for version in file.versions:
        _check(f"token rules {path}, version {version.version}", version)
    return by_date(f"token rules {path}", [(v.effective_from, v) for v in file.versions], TokenRulesError)


def _check(where: str, rules: TokenRules) -> None:
    if not 0 < rules.renew_after_percent < 100:
        raise TokenRulesError(f"{where}: renew_after_percent must lie between 0 and 100")
    for name in ("between_ms", "young_ms", "seen_within_ms", "report_again_ms"):
        if getattr(rules, name) <= 0:
            raise TokenRulesError(f"{where}: {name} must be above 0")
    for name in ("young", "unanswered", "refused", "limited"):
        backoff: Backoff = getattr(rules, name)
        if not 0 < backoff.first_ms <= backoff.longest_ms:
            raise TokenRulesError(f"{where}: {name}: first_ms must be above 0 and at most longest_ms")
