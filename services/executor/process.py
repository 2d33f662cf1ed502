"""What the shards of one process share: connections, tables, rules and the disk. Nothing here decides anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from services.executor.control import ControlTable
from services.executor.disk import Disk
from services.executor.gates import Gates
from services.executor.key_ring import KeyRing
from services.executor.metrics import ExecutorMetrics
from services.executor.token_rules import TokenRules
from services.executor.token_table import TokenTable
from services.executor.work import Surroundings
from siyu.events import Codec
from siyu.limits import LimitSource
from siyu.ops.clock import PacedClock
from siyu.ops.corps import Corp
from siyu.wecom.client import Answer, NotSent, Result, TooLarge, WecomClient
from siyu.wecom.errors import ErrorTable

_LEAST_OF_A_SHARD = 1_000


@dataclass
class Process:
    """One executor process. ``shards`` is the partition count of every lane, of the ledger and of the quotas."""

    bootstrap: str
    instance: str
    incarnation: str
    """Of this start of the process: a successor of the same name has another."""
    shards: int
    ledger_id: str
    """Identity of the topic ``action.ledger``: a disk that knows another one is read anew."""
    egress: str
    corps: Mapping[str, Corp]
    codec: Codec
    clock: PacedClock
    random: Random
    client: WecomClient
    disk: Disk
    limits: LimitSource
    tokens: TokenTable
    control: ControlTable
    around: Surroundings
    metrics: ExecutorMetrics
    gates: Callable[[int, str], Gates]
    """A shard's gates, for the shard and its incarnation."""
    ring: KeyRing
    token_rules: TokenRules
    error_table: Callable[[], ErrorTable]
    nonce: Callable[[], bytes]
    """12 random bytes."""
    known_codes: frozenset[int]
    most_waiting: int
    """Actions of one lane, over all shards of the process, that are taken in and not done with."""
    keep_ended_ms: int
    """How long an action that ended is remembered (wall time): a repeat later than that is a new action."""
    token_timeout_ms: int
    """Of a gettoken call, wall time."""
    fresh: Callable[[str, int], bool]
    """Whether a table was complete within so many ms of wall time."""
    log_events: bool
    owned: int = 1
    """Shards this process works on; each gets its part of the room."""

    @property
    def most_of_a_shard(self) -> int:
        """Actions of one lane of one shard that are taken in and not done with."""
        return max(_LEAST_OF_A_SHARD, self.most_waiting // max(1, self.owned))

    def observe(self, endpoint: str, result: Result) -> None:
        """Counts one call."""
        match result:
            case Answer():
                label = str(result.errcode) if result.errcode in self.known_codes else "other"
            case TooLarge():
                label = "too_large"
            case NotSent():
                label = "not_sent"
            case _:
                label = "unknown"
        self.metrics.calls.labels(endpoint, label).observe(result.seconds)
