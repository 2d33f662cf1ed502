"""What one registry changes about another, in words and by date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from siyu.limits.loading import moment_text
from siyu.limits.model import LimitRegistry, Version


@dataclass(frozen=True)
class Change:
    """One version that came, went or says something else."""

    kind: Literal["+", "-", "~"]
    what: str
    """Id of the limit, or ``headroom`` or ``margins``."""
    begins_ms: int
    """Business time from which the version holds."""
    details: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what} from {moment_text(self.begins_ms)}: {self.details}"


def difference(old: LimitRegistry, new: LimitRegistry) -> list[Change]:
    """Changes that make ``new`` of ``old``, by name and date; empty for equal registries."""
    found: list[Change] = []
    for name in sorted({*old.limits, *new.limits}):
        found += _versions(name, old.limits.get(name, ()), new.limits.get(name, ()))
    found += _versions("headroom", old.headroom, new.headroom)
    found += _versions("margins", old.margins, new.margins)
    return found


def _versions(name: str, old: Sequence[Version[Any]], new: Sequence[Version[Any]]) -> list[Change]:
    before = {version.begins_ms: _told(version) for version in old}
    after = {version.begins_ms: _told(version) for version in new}
    changes: list[Change] = []
    for begins_ms in sorted({*before, *after}):
        was, now = before.get(begins_ms), after.get(begins_ms)
        if was is None and now is not None:
            changes.append(Change("+", name, begins_ms, _words(now)))
        elif now is None and was is not None:
            changes.append(Change("-", name, begins_ms, _words(was)))
        elif was is not None and now is not None and was != now:
            told = [f"{k} {was.get(k, '–')} → {now.get(k, '–')}" for k in (was | now) if was.get(k) != now.get(k)]
            changes.append(Change("~", name, begins_ms, ", ".join(told)))
    return changes


def _told(version: Version[Any]) -> dict[str, str]:
    value = version.value
    told: dict[str, Any] = (
        dict(value) if isinstance(value, Mapping) else {f.name: getattr(value, f.name) for f in fields(value)}
    )
    told.pop("id", None)
    words = {name: " ".join(v) if isinstance(v, tuple) else str(v) for name, v in told.items()}
    if version.ends_ms is not None:
        words["effective_until"] = moment_text(version.ends_ms)
    return words


def _words(told: Mapping[str, str]) -> str:
    """What is said of a version that came or went: all that is not empty, but for the long words."""
    return ", ".join(f"{k} {v}" for k, v in told.items() if v and k not in ("source", "confidence", "note", "family"))
