"""Rules as data: dated versions from ``schemas/rules``, validated whole when loaded."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path

import msgspec

from siyu.ops.dated import beijing_midnight_ms, load_yaml
from siyu.wecom.endpoints import ENDPOINTS

MAX_TEXT_BYTES = 4000
"""Of a welcome's text (fact sheet 3.4)."""


class RuleError(ValueError):
    """A rule file that cannot be used; the message names the place."""


class WelcomeVersion(msgspec.Struct, frozen=True):
    """One wording."""

    version: str
    effective_from_ms: int
    content: str


class WelcomeRule(msgspec.Struct, frozen=True):
    """The welcome rule with all its versions, oldest first."""

    id: str
    endpoint: str
    ttl_ms: int
    versions: tuple[WelcomeVersion, ...]

    def at(self, business_ms: int) -> WelcomeVersion:
        """The version in force at a business time; before the first one, the first."""
        chosen = self.versions[0]
        for version in self.versions:
            if version.effective_from_ms <= business_ms:
                chosen = version
        return chosen


class _Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zh: str
    en: str


class _Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    effective_from: datetime.date
    source: str
    text: _Text


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    endpoint: str
    ttl_ms: int
    versions: list[_Version]


def load_welcome_rule(path: Path) -> WelcomeRule:
    """Reads and validates the file. Raises RuleError."""
    file = load_yaml(path, "rule", _File, RuleError)
    if file.endpoint not in ENDPOINTS:
        raise RuleError(f"rule {path}: unknown endpoint {file.endpoint!r}")
    if file.ttl_ms <= 0 or not file.versions:
        raise RuleError(f"rule {path}: needs a positive ttl_ms and at least one version")
    versions = tuple(_version(path, v) for v in file.versions)
    if any(later.effective_from_ms <= earlier.effective_from_ms for earlier, later in itertools.pairwise(versions)):
        raise RuleError(f"rule {path}: versions must have ascending effective_from")
    if len({v.version for v in versions}) != len(versions):
        raise RuleError(f"rule {path}: two versions have one name")
    return WelcomeRule(file.id, file.endpoint, file.ttl_ms, versions)


def _version(path: Path, version: _Version) -> WelcomeVersion:
    content = "\n".join(text for text in (version.text.zh.strip(), version.text.en.strip()) if text)
    size = len(content.encode())
    if not 0 < size <= MAX_TEXT_BYTES:
        raise RuleError(
            f"rule {path}: version {version.version}: text has {size} bytes, allowed are 1 to {MAX_TEXT_BYTES}"
        )
    return WelcomeVersion(version.version, beijing_midnight_ms(version.effective_from), content)
