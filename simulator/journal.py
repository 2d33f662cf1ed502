"""What became of the newest callbacks: time, event and result, never what they say about people."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from siyu.ops.clock import wall_ms

_CHANGE_TYPE = re.compile(rb"<ChangeType>(?:<!\[CDATA\[)?([A-Za-z_]{1,40})")
_KEPT = 1_000


@dataclass(slots=True)
class Delivery:
    """One callback on its way to one app. ``time_ms``: wall time at which it was handed over."""

    number: int
    time_ms: int
    corp_id: str
    agent_id: str
    event: str
    change_type: str
    attempts: int = 0
    result: str = "waiting"
    """waiting, accepted, refused, timeout or unreachable (the last attempt), dropped (given up), lost (never sent)."""


class Journal:
    """The newest deliveries."""

    def __init__(self) -> None:
        self._newest: deque[Delivery] = deque(maxlen=_KEPT)
        self._count = 0

    def open(self, corp_id: str, agent_id: str, event: str, content: bytes) -> Delivery:
        """Notes a callback; whoever delivers it keeps the entry up to date."""
        found = _CHANGE_TYPE.search(content)
        change_type = found[1].decode() if found else ""
        entry = Delivery(self._count, wall_ms(), corp_id, agent_id, event, change_type)
        self._count += 1
        self._newest.append(entry)
        return entry

    def newest_first(self) -> Iterator[Delivery]:
        """From the newest back."""
        return reversed(self._newest)
