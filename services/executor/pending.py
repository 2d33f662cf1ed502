"""What one transaction of a shard writes, and what it leaves on disk once it is durable."""

from __future__ import annotations

import asyncio

import msgspec

from services.executor.disk import Disk
from services.executor.governor import Path
from services.executor.journal import LEDGER, Message
from services.executor.site import Staged
from siyu.events import ActionOutcome, Codec, LedgerEntry

OUTCOMES = "action.outcomes"
LARGEST_BYTES = 7 << 20
"""Of a record. A broker counts compressed bytes, so larger ones come through; nothing that holds one could be written
again, and the shard would try for ever."""


class Permit:
    """A call outside the lanes (gettoken): admitted, reserved and started like every other."""

    __slots__ = ("granted", "path", "start_by")

    def __init__(self, path: Path, granted: asyncio.Future[None]) -> None:
        self.path = path
        self.granted = granted
        self.start_by: float | None = None
        """Monotonic seconds; None: not reserved yet."""


class Pending:
    """Gathered from one commit to the next."""

    def __init__(self, shard: int, codec: Codec, disk: Disk) -> None:
        self._shard = shard
        self._codec = codec
        self._disk = disk
        self._ledger: dict[str, tuple[bytes | None, int]] = {}
        """The newest entry of each action, None for one to be forgotten, and when it ended (wall ms; 0: open)."""
        self._made: list[tuple[str, str]] = []
        """Corp, and the platform's id of what a call made."""
        self.messages: list[Message] = []
        self.outcomes: list[ActionOutcome] = []
        self.staged: list[Staged] = []
        self.permits: list[Permit] = []
        self.written: list[asyncio.Future[None]] = []
        """Who waits for this transaction to be durable."""
        self.since = 0.0

    def __bool__(self) -> bool:
        return bool(self.messages or self.staged or self.permits)

    def enter(self, entry: LedgerEntry) -> None:
        """Adds a record of the ledger."""
        value = self._codec.encode(entry)
        self.messages.append(Message(LEDGER, entry.action_id.encode(), value, self._shard))
        self._ledger[entry.action_id] = value, entry.updated_at_ms if entry.state == "ended" else 0
        if entry.message_id:
            self._made.append((entry.corp_id, entry.message_id))
            self._disk.note_made(entry.corp_id, entry.message_id)

    def forget(self, action_id: str, ended_at_ms: int) -> None:
        """Takes an action that ended out of the ledger."""
        self.messages.append(Message(LEDGER, action_id.encode(), None, self._shard))
        self._ledger[action_id] = None, ended_at_ms

    def entered(self, action_id: str) -> bytes | None:
        """The entry of an action that this transaction writes."""
        return self._ledger.get(action_id, (None, 0))[0]

    def publish(self, outcome: ActionOutcome) -> None:
        """Adds an outcome."""
        if len(outcome.request) + len(outcome.response) > LARGEST_BYTES:
            # A long answer to a long question: both together fit into no record, and the answer is what was wanted.
            outcome = msgspec.structs.replace(outcome, request=b"")
        subject = outcome.subject or outcome.corp_id
        self.messages.append(Message(OUTCOMES, subject.encode(), self._codec.encode(outcome)))
        self.outcomes.append(outcome)

    def keep(self, ledger_id: str, next_offset: int | None) -> None:
        """Writes the entries to disk: they are durable, and the ledger's next offset is this."""
        if not self._ledger:
            return
        batch = self._disk.batch(self._shard, ledger_id)
        for action_id, (value, ended_at_ms) in self._ledger.items():
            if value is None:
                batch.delete(action_id, ended_at_ms)
            else:
                batch.put(action_id, value, ended_at_ms)
        for corp_id, message_id in self._made:
            batch.made(corp_id, message_id)
        batch.next_offset = next_offset
        batch.write()
