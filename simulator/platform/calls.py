"""Every call received, in order of arrival: the newest in memory, all of them in a file when one is named."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

_FLUSH_MS = 1_000
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call as it was answered. ``time_ms``: wall time of the arrival; ``business_ms``: what the clock said."""

    time_ms: int
    business_ms: int
    endpoint: str
    corp_id: str
    agent_id: str
    errcode: int


class CallLog:
    """Calls by their number, from 0; only the newest ``kept`` can be read again."""

    def __init__(self, kept: int, path: Path | None = None) -> None:
        """``path``: calls are appended, one JSON object a line, at most a second late. Raises OSError."""
        self._newest: deque[RecordedCall] = deque(maxlen=kept)
        self._file: IO[bytes] | None = None
        self._encoder = msgspec.json.Encoder()
        self._flushed_ms = 0
        self.total = 0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=_BUFFER_BYTES)

    def append(self, call: RecordedCall) -> None:
        """Takes one call."""
        self._newest.append(call)
        self.total += 1
        if self._file is not None:
            self._file.write(self._encoder.encode(call) + b"\n")
            if call.time_ms - self._flushed_ms >= _FLUSH_MS:
                self._file.flush()
                self._flushed_ms = call.time_ms

    def since(self, number: int) -> Iterator[tuple[int, RecordedCall]]:
        """(number, call) from ``number`` on, or from the oldest there still is."""
        oldest = self.total - len(self._newest)
        skipped = max(0, number - oldest)
        return zip(itertools.count(oldest + skipped), itertools.islice(self._newest, skipped, None), strict=False)

    def close(self) -> None:
        """Writes what is not in the file yet."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __iter__(self) -> Iterator[RecordedCall]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)
