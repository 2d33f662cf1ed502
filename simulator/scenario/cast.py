"""Who is in a world: ids of staff and customers as the platform gives them, opaque and the same for the same seed."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from itertools import accumulate

_LETTERS = string.ascii_letters + string.digits


def customer_id(rng: random.Random) -> str:
    """32 characters beginning with ``wm`` (fact sheet 0)."""
    return "wm" + "".join(rng.choices(_LETTERS, k=30))


def staff_by_corp(rng: random.Random, corps: Sequence[str], count: int) -> dict[str, tuple[str, ...]]:
    """``count`` staff members over the corps; every corp has one at least when there are enough."""
    members: dict[str, list[str]] = {corp_id: [] for corp_id in corps}
    for number in range(count):
        corp_id = corps[number] if number < len(corps) else rng.choice(corps)
        members[corp_id].append(f"s{number + 1:05d}")
    return {corp_id: tuple(ids) for corp_id, ids in members.items()}


class StaffChoice:
    """Picks staff members, some far more often than others, as shops are."""

    def __init__(self, rng: random.Random, staff: dict[str, tuple[str, ...]]) -> None:
        self._rng = rng
        self._everybody = [(corp_id, staff_id) for corp_id, ids in staff.items() for staff_id in ids]
        rng.shuffle(self._everybody)
        self._weights = list(accumulate(1 / (rank + 8) for rank in range(len(self._everybody))))
        self._of_corp = staff

    def anybody(self) -> tuple[str, str]:
        """(corp_id, staff_id)"""
        return self._rng.choices(self._everybody, cum_weights=self._weights)[0]

    def colleague(self, corp_id: str, staff_id: str) -> str | None:
        """Another staff member of the corp; None when there is nobody else."""
        others = [other for other in self._of_corp[corp_id] if other != staff_id]
        return self._rng.choice(others) if others else None
