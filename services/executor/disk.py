"""The executor's disk: a cache of what Kafka holds, never the truth.

Two things live here, by shard: the ledger (so that a repeated action is recognised without holding every action in
memory) with the offset of ``action.ledger`` it stands for, written in one batch; and the spool, the bytes of waiting
actions that do not fit in memory. Losing the folder costs time, not knowledge.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch

from siyu.ops.clock import wall_ms

_HEAD = struct.Struct(">HB")
_OFFSET = struct.Struct(">Q")
_PLACE = struct.Struct(">QQ")
"""Offset, and the wall time at which it was noted."""
_LEDGER, _ENDED, _SPOOL, _POSITION, _MESSAGE, _OPEN = range(6)
_EVERY_SHARD = 0xFFFF
_TRUSTED_MS = 3 * 86_400_000
"""Compaction drops a tombstone a week after it was written (delete.retention.ms). A disk that was away for longer may
hold as open what has ended and been forgotten since, and would do it again: it is read anew long before that."""
_CACHE_BYTES = 8 << 20
_WRITE_BUFFER_BYTES = 4 << 20
_SPOOL_IN_MEMORY_BYTES = 2 << 20


class DiskLocked(Exception):
    """Another process on this machine uses the folder."""


class Disk:
    """One per process, shared by its shards. Not for several threads."""

    def __init__(self, folder: Path, wall: Callable[[], int] = wall_ms) -> None:
        """Raises DiskLocked."""
        self._wall = wall
        folder.mkdir(parents=True, exist_ok=True)
        self._db: Any
        self._spool: Any
        try:
            self._db = Rdict(str(folder / "ledger"), _options())
        except Exception as error:
            if "lock" in str(error).lower():
                raise DiskLocked(f"{folder} is used by another process: give each its own SIYU_INSTANCE") from None
            shutil.rmtree(folder / "ledger", ignore_errors=True)
            self._db = Rdict(str(folder / "ledger"), _options())
        self._held: dict[tuple[int, int, int], bytes] = {}
        self._held_bytes = 0
        self._noted: set[tuple[str, str]] = set()
        # Offsets of a spool belong to one owner's reading, so what an earlier process left is of no use.
        shutil.rmtree(folder / "spool", ignore_errors=True)
        self._spool = Rdict(str(folder / "spool"), _options())

    def close(self) -> None:
        """Flushes and closes."""
        self._spool.close()
        self._db.close()

    # -- ledger -------------------------------------------------------------------------------------------------

    def position(self, shard: int) -> tuple[str, int] | None:
        """Identity of the ledger topic and next offset of it that this disk does not know yet. None: it knows nothing,
        or nothing that could still be relied on, which it has forgotten then."""
        value = self._db.get(_HEAD.pack(shard, _POSITION))
        if value is None:
            return None
        offset, written_ms = _PLACE.unpack_from(value)
        if not 0 <= self._wall() - written_ms < _TRUSTED_MS:
            self.forget(shard)
            return None
        return value[_PLACE.size :].decode(errors="replace"), offset

    def entry(self, shard: int, action_id: str) -> bytes | None:
        """The encoded LedgerEntry of an action or body."""
        found: bytes | None = self._db.get(_HEAD.pack(shard, _LEDGER) + action_id.encode())
        return found

    def note_made(self, corp_id: str, message_id: str) -> None:
        """Known from now on, durable with the batch that says so."""
        self._noted.add((corp_id, message_id))

    def knows_message(self, corp_id: str, message_id: str) -> bool:
        """Whether a call of ours is known to have made what the platform calls so."""
        return (corp_id, message_id) in self._noted or self._db.get(_message_key(corp_id, message_id)) is not None

    def batch(self, shard: int, topic_id: str) -> LedgerBatch:
        """Changes of a shard's ledger to be written as one."""
        return LedgerBatch(self._db, shard, topic_id, self._noted, self._wall)

    def open_entries(self, shard: int) -> Iterator[tuple[str, bytes]]:
        """Every entry that has not ended."""
        prefix = _HEAD.pack(shard, _OPEN)
        for key in self._db.keys(from_key=prefix):
            if not key.startswith(prefix):
                return
            action_id = key[len(prefix) :].decode()
            value = self.entry(shard, action_id)
            if value is not None:
                yield action_id, value

    def ended_before(self, shard: int, wall_ms: int, limit: int) -> list[tuple[str, int]]:
        """Up to ``limit`` actions that ended before a wall time, and when, oldest first. One that was forgotten and
        begun anew since is still named: compare."""
        prefix = _HEAD.pack(shard, _ENDED)
        found: list[tuple[str, int]] = []
        for key in self._db.keys(from_key=prefix):
            if not key.startswith(prefix) or len(found) >= limit:
                break
            at = _OFFSET.unpack_from(key, len(prefix))[0]
            if at >= wall_ms:
                break
            found.append((key[len(prefix) + _OFFSET.size :].decode(), at))
        return found

    def unmark(self, shard: int, action_id: str, ended_at_ms: int) -> None:
        """:meth:`ended_before` names this end no more; the entry stays as it is."""
        self._db.delete(_ended_key(shard, action_id, ended_at_ms))

    def forget(self, shard: int) -> None:
        """Drops a shard's ledger: it is to be read anew."""
        for kind in (_LEDGER, _ENDED, _POSITION, _OPEN):
            self._db.delete_range(_HEAD.pack(shard, kind), _HEAD.pack(shard, kind + 1))

    # -- spool --------------------------------------------------------------------------------------------------

    def spool(self, shard: int, lane: int, number: int, value: bytes) -> None:
        """Keeps a waiting action's bytes: in memory while there is room."""
        if self._held_bytes + len(value) <= _SPOOL_IN_MEMORY_BYTES:
            self._held[shard, lane, number] = value
            self._held_bytes += len(value)
        else:
            self._spool[self._spool_key(shard, lane, number)] = value

    def spooled(self, shard: int, lane: int, number: int) -> bytes:
        """The bytes of a waiting action; they stay until :meth:`unspool`."""
        held = self._held.get((shard, lane, number))
        if held is not None:
            return held
        value: bytes = self._spool[self._spool_key(shard, lane, number)]
        return value

    def unspool(self, shard: int, lane: int, number: int) -> None:
        """The action waits no more."""
        held = self._held.pop((shard, lane, number), None)
        if held is not None:
            self._held_bytes -= len(held)
        else:
            self._spool.delete(self._spool_key(shard, lane, number))

    def drop_spool(self, shard: int) -> None:
        """The shard is somebody else's now."""
        for key in [key for key in self._held if key[0] == shard]:
            self._held_bytes -= len(self._held.pop(key))
        self._spool.delete_range(_HEAD.pack(shard, _SPOOL), _HEAD.pack(shard, _SPOOL + 1))

    @staticmethod
    def _spool_key(shard: int, lane: int, number: int) -> bytes:
        return _HEAD.pack(shard, _SPOOL) + bytes((lane,)) + _OFFSET.pack(number)


class LedgerBatch:
    """Ledger changes and the position they lead to; nothing of it is visible before :meth:`write`."""

    def __init__(
        self, db: Any, shard: int, topic_id: str, noted: set[tuple[str, str]], wall: Callable[[], int]
    ) -> None:
        self._noted = noted
        self._wall = wall
        self._made: list[tuple[str, str]] = []
        self._db = db
        self._shard = shard
        self._topic_id = topic_id
        self._batch = WriteBatch(raw_mode=True)
        self.next_offset: int | None = None

    def put(self, action_id: str, value: bytes, ended_at_ms: int) -> None:
        """``ended_at_ms``: wall time; 0 while it is open."""
        self._batch.put(_HEAD.pack(self._shard, _LEDGER) + action_id.encode(), value)
        still_open = _HEAD.pack(self._shard, _OPEN) + action_id.encode()
        if ended_at_ms:
            self._batch.put(_ended_key(self._shard, action_id, ended_at_ms), b"")
            self._batch.delete(still_open)
        else:
            self._batch.put(still_open, b"")

    def made(self, corp_id: str, message_id: str) -> None:
        """A call of ours made this."""
        self._batch.put(_message_key(corp_id, message_id), b"")
        self._made.append((corp_id, message_id))

    def delete(self, action_id: str, ended_at_ms: int) -> None:
        """Forgets an entry."""
        self._batch.delete(_HEAD.pack(self._shard, _LEDGER) + action_id.encode())
        self._batch.delete(_HEAD.pack(self._shard, _OPEN) + action_id.encode())
        if ended_at_ms:
            self._batch.delete(_ended_key(self._shard, action_id, ended_at_ms))

    def write(self) -> None:
        """All of it, with the position."""
        if self.next_offset is not None:
            position = _PLACE.pack(self.next_offset, self._wall()) + self._topic_id.encode()
            self._batch.put(_HEAD.pack(self._shard, _POSITION), position)
        self._db.write(self._batch)
        self._noted.difference_update(self._made)


def _ended_key(shard: int, action_id: str, ended_at_ms: int) -> bytes:
    return _HEAD.pack(shard, _ENDED) + _OFFSET.pack(ended_at_ms) + action_id.encode()


def _message_key(corp_id: str, message_id: str) -> bytes:
    return _HEAD.pack(_EVERY_SHARD, _MESSAGE) + f"{corp_id}|{message_id}".encode()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    table = BlockBasedOptions()
    # Nearly every question is about an action that was never seen: the filter answers those.
    table.set_bloom_filter(10, False)
    table.set_block_cache(Cache(_CACHE_BYTES))
    options.set_block_based_table_factory(table)
    return options
