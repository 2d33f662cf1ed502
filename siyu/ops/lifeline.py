"""Tells brokers that are away from a client that has lost brokers which are there.

A broker that its controller has missed for a moment (a stalled machine, a rolling restart) is left out of a metadata
answer, and librdkafka (2.16, its issues 5301 and 5511) then drops it together with what waits for it: the group's
coordinator is asked no more, for as long as the process lives. A new client is answered at once. That is how to tell
the two apart, and a restart is the way out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

PATIENCE_S = 20.0
"""Others are answered for so long and we are not: longer than a coordinator takes to load."""
_ASK_EVERY_S = 5.0
_ANSWER_S = 3.0


def brokers_answer(config: Mapping[str, Any]) -> bool:
    """Whether a client that is made for the question finds a broker."""
    asked = AdminClient({**config, "log_level": 0})
    try:
        return bool(asked.list_topics(timeout=_ANSWER_S).brokers)
    except KafkaException:
        return False


class Lifeline:
    """Of one process's clients. One thread at a time."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        patience_s: float = PATIENCE_S,
        ask: Callable[[Mapping[str, Any]], bool] = brokers_answer,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``config``: librdkafka's properties, to reach the same brokers."""
        self._config = config
        self._patience_s = patience_s
        self._ask = ask
        self._now = now
        self._asked_at = 0.0
        self._held_at = now()
        self._others_since: float | None = None

    def holds(self) -> None:
        """A call of ours was answered."""
        self._held_at = self._now()
        self._others_since = None

    @property
    def quiet_s(self) -> float:
        """How long nothing of ours has been answered, asked or not."""
        return self._now() - self._held_at

    def is_cut(self) -> bool:
        """After a call of ours that was not: whether others have been answered all the while."""
        now = self._now()
        if self._others_since is not None and now - self._asked_at < _ASK_EVERY_S:
            return False
        self._asked_at = now
        if not self._ask(self._config):
            self._others_since = None
            return False
        if self._others_since is None:
            self._others_since = now
        return now - self._others_since >= self._patience_s
