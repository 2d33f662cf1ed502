"""When tokens are renewed, as dated data: ``schemas/rules/tokens.yaml``, validated whole when it is loaded."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path

import msgspec
import yaml

from siyu.wecom.errors import beijing_midnight_ms


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


class TokenRulesByDate:
    """All versions."""

    def __init__(self, versions: list[TokenRules]) -> None:
        self._versions = [(beijing_midnight_ms(version.effective_from), version) for version in versions]

    def at(self, as_of_ms: int) -> TokenRules:
        """The version in force (wall time, epoch ms); before the first one, the first."""
        chosen = self._versions[0][1]
        for effective_from_ms, version in self._versions:
            if effective_from_ms <= as_of_ms:
                chosen = version
        return chosen


def load_token_rules(path: Path) -> TokenRulesByDate:
    """Reads and validates the file. Raises TokenRulesError."""
    try:
        file = msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), type=_File)
    except OSError as error:
        raise TokenRulesError(f"token rules {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise TokenRulesError(f"token rules {path}: not YAML: {error}") from None
    except msgspec.ValidationError as error:
        raise TokenRulesError(f"token rules {path}: {error}") from None
    if not file.versions:
        raise TokenRulesError(f"token rules {path}: no version")
    for version in file.versions:
        _check(f"token rules {path}, version {version.version}", version)
    begins = [version.effective_from for version in file.versions]
    if any(later <= earlier for earlier, later in itertools.pairwise(begins)):
        raise TokenRulesError(f"token rules {path}: versions must have ascending effective_from")
    return TokenRulesByDate(file.versions)


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
