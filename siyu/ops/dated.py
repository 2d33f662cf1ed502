"""Rules as data: YAML files of dated versions, each in force from a midnight of the platform (UTC+8)."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import yaml

from siyu.events.business_time import SHANGHAI

T = TypeVar("T")


def beijing_midnight_ms(day: datetime.date) -> int:
    """Begin of a day of the platform, epoch ms."""
    return int(datetime.datetime.combine(day, datetime.time(), SHANGHAI).timestamp() * 1000)


class ByDate(Generic[T]):
    """The versions of one thing, oldest first."""

    def __init__(self, versions: Sequence[tuple[int, T]]) -> None:
        """``versions``: from when each is in force (epoch ms), ascending; at least one."""
        self._versions = tuple(versions)

    def at(self, as_of_ms: int) -> T:
        """The version in force; before the first one, the first: there is no older knowledge."""
        chosen = self._versions[0][1]
        for effective_from_ms, version in self._versions:
            if effective_from_ms <= as_of_ms:
                chosen = version
        return chosen


def load_yaml(path: Path, what: str, of: type[T], error: type[ValueError]) -> T:
    """Reads a file and checks its form. Raises ``error``, whose message begins with what the file is."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), type=of)
    except OSError as fault:
        raise error(f"{what} {path}: {fault.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise error(f"{what} {path}: not YAML: {fault}") from None
    except msgspec.ValidationError as fault:
        raise error(f"{what} {path}: {fault}") from None


def by_date(where: str, versions: Sequence[tuple[datetime.date, T]], error: type[ValueError]) -> ByDate[T]:
    """The versions of a file that stand in it in ascending order. Raises ``error``."""
    if not versions:
        raise error(f"{where}: no version")
    if any(later <= earlier for (earlier, _), (later, _) in itertools.pairwise(versions)):
        raise error(f"{where}: versions must have ascending effective_from")
    return ByDate([(beijing_midnight_ms(day), version) for day, version in versions])
