"""A record that cannot be processed is kept whole in the dead-letter topic, and a flood of them halts the partition.

Headers tell where it came from and what went wrong by class and place only: an error's message may hold a name or a
phone number, so it goes nowhere.
"""

from __future__ import annotations

from collections import deque

from confluent_kafka import Message

from siyu.ops import dlq
from siyu.stream.types import StreamSettings, Timer


class NoKey(ValueError):
    """A record without a key has no state to work on."""


class TooLarge(ValueError):
    """An output or a state is larger than a record may be."""


class UndeclaredOutput(ValueError):
    """A step emitted to a topic that is not among the processor's outputs."""


class UnusableTimer(ValueError):
    """A timer without a state to live in, or in a processor without ``on_timer``."""


def headers(message: Message, stage: str, error: BaseException, processor: str) -> list[tuple[str, bytes]]:
    """Headers of the dead letter that ``message`` becomes."""
    return dlq.headers(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        stage=stage,
        error=error,
        processor=processor,
        earlier=dict(message.headers() or ()).items(),
    )


def timer_headers(timer: Timer, partition: int, error: BaseException, processor: str) -> list[tuple[str, bytes]]:
    """Headers of the dead letter of a timer: it has no origin record to send back, its key is that of the letter."""
    return dlq.headers("", partition, -1, timer.due_ms, stage="timer", error=error, processor=processor)


class DeadLetterLimit:
    """Decides for one partition when dead letters are no longer a few bad records of theirs but an outage of ours."""

    def __init__(self, settings: StreamSettings) -> None:
        self._run_limit = settings.dead_letter_run
        self._window = settings.dead_letter_window
        self._share_limit = int(settings.dead_letter_share * settings.dead_letter_window)
        self._dead: deque[int] = deque()
        self._run = 0

    def exceeded(self, sequence: int) -> str | None:
        """The ``sequence``-th record of the partition is dead: the reason to halt before it, or None to let it go.

        Only dead records are reported, so good ones cost nothing; the gaps between the numbers tell of them.
        """
        run = self._run + 1 if self._dead and self._dead[-1] == sequence - 1 else 1
        while self._dead and self._dead[0] <= sequence - self._window:
            self._dead.popleft()
        if run > self._run_limit:
            return f"more than {self._run_limit} dead letters in a row"
        if len(self._dead) >= self._share_limit:
            return f"more than {self._share_limit} dead letters within {self._window} records"
        self._run = run
        self._dead.append(sequence)
        return None
