"""One partition's states on disk: a cache of the changelog that always knows up to which offset it is one.

States and the changelog position are written in one WriteBatch, so after any crash the store is exact for its
position, and what came later is read from the changelog. It is never synced to disk per batch: losing the tail of the
write-ahead log loses states and position together.

Timers are indexed by due time as the states that hold them are written, whoever writes them. An entry is a hint: the
state decides, so what was cancelled or moved meanwhile is found stale when it comes up, and is cleared then.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch

from siyu.stream.errors import ForeignStore, StreamError
from siyu.stream.state import TIMED, can_read, due_times
from siyu.stream.types import Processor, S

# 0xff starts no UTF-8 string and keys are UTF-8, so what starts with it can never meet a key.
RESERVED = b"\xff"
# What a store knows about itself.
POSITION = RESERVED + b"position"
TOPOLOGY = RESERVED + b"topology"
_TIMER = RESERVED + b"timer"
_TIMER_END = RESERVED + b"times"
POSITION_FORMAT = struct.Struct(">QQ")
_DUE_FORMAT = struct.Struct(">Q")
_BLOCK_CACHE_BYTES = 32 << 20
_WRITE_BUFFER_BYTES = 16 << 20
_KEEP_MS = 3_600_000


class StoreLocked(StreamError):
    """Another process on this machine has the store open."""


def topology(processor: Processor[S], changelog_id: str) -> dict[str, object]:
    """What makes a store ours: its states mean something else under any other answer."""
    return {
        "processor": processor.name,
        "inputs": sorted(processor.inputs),
        "changelog": processor.changelog,
        "changelog_id": changelog_id,
        "state": processor.state_type.__name__,
        "state_version": processor.state_version,
    }


class StateStore:
    """The open store of one partition. ``position`` is the next changelog offset to apply."""

    def __init__(self, path: Path) -> None:
        """Raises StoreLocked when another process holds it."""
        self.path = path
        self._topology = b"{}"
        self._open()

    def _open(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)
        table = BlockBasedOptions()
        # Half of a retail chain's events are a key's first: a filter answers those without touching a block.
        table.set_bloom_filter(10, False)
        table.set_block_cache(Cache(_BLOCK_CACHE_BYTES))
        options.set_block_based_table_factory(table)
        try:
            self._db = Rdict(str(self.path), options)
        except Exception as error:
            if "lock" not in str(error).lower():
                raise
            raise StoreLocked(f"state store {self.path} is open in another process") from None
        stored = self._db.get(POSITION)
        self.position, self.used_ms = POSITION_FORMAT.unpack(stored) if stored else (0, 0)

    def adopt(self, ours: dict[str, object], processor: Processor[S]) -> bool:
        """Makes a new store ours, or checks that it is. False: it was emptied, being of a changelog since recreated.

        Raises ForeignStore when it holds another topology's states.
        """
        self._topology = json.dumps(ours).encode()
        stored = self._db.get(TOPOLOGY)
        theirs: dict[str, object] = json.loads(stored) if stored else ours
        differs = [k for k in ours if k not in ("state_version", "changelog_id") and theirs.get(k) != ours[k]]
        if not can_read(processor, int(str(theirs["state_version"]))):
            differs.append("state_version")
        if differs:
            what = ", ".join(f"{k} is {theirs.get(k)}, ours {ours[k]}" for k in differs)
            raise ForeignStore(
                f"state store {self.path} belongs to another topology: {what}. Point the state directory elsewhere, or "
                f"remove {self.path} to rebuild it from {processor.changelog}"
            )
        if theirs["changelog_id"] != ours["changelog_id"]:
            self.wipe()
            return False
        self._db[TOPOLOGY] = self._topology
        return True

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The stored bytes of each key, None where there are none."""
        found: list[bytes | None] = self._db.get(keys)  # type: ignore[assignment,arg-type]
        return found

    def write(
        self,
        changes: Iterable[tuple[bytes, bytes | None]],
        position: int,
        used_ms: int,
        cleared: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Applies changes (None deletes) and moves to ``position``, all or nothing.

        ``cleared`` are timer entries (due, key) that are over. One that a change sets anew stays.
        """
        batch = WriteBatch(raw_mode=True)
        for due_ms, key in cleared:
            batch.delete(_TIMER + _DUE_FORMAT.pack(due_ms) + key)
        for key, value in changes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
                if value[0] == TIMED:
                    for due_ms in due_times(value):
                        batch.put(_TIMER + _DUE_FORMAT.pack(due_ms) + key, b"")
        batch.put(POSITION, POSITION_FORMAT.pack(position, used_ms))
        self._db.write(batch)
        self.position, self.used_ms = position, used_ms

    def timers(self, from_ms: int) -> Iterator[tuple[int, bytes]]:
        """(due, key) of the timers due at ``from_ms`` or later, in order."""
        entries = self._db.iter()
        entries.seek(_TIMER + _DUE_FORMAT.pack(from_ms))
        begin = len(_TIMER)
        while entries.valid() and (entry := bytes(entries.key())) < _TIMER_END:
            yield _DUE_FORMAT.unpack_from(entry, begin)[0], entry[begin + _DUE_FORMAT.size :]
            entries.next()

    def size(self) -> tuple[int, int]:
        """(keys, bytes on disk and in write buffers), as RocksDB estimates them."""
        ask = self._db.property_int_value
        return (
            ask("rocksdb.estimate-num-keys") or 0,
            (ask("rocksdb.total-sst-files-size") or 0) + (ask("rocksdb.cur-size-all-mem-tables") or 0),
        )

    def wipe(self) -> None:
        """Empties the store, so that the changelog rebuilds it from its start."""
        self._db.close()
        shutil.rmtree(self.path)
        self._open()
        self._db[TOPOLOGY] = self._topology

    def keep(self, now_ms: int) -> None:
        """Notes that the store is in use although nothing is written, at most once an hour."""
        if self.position and now_ms - self.used_ms > _KEEP_MS:
            self.write((), self.position, now_ms)

    def is_empty(self) -> bool:
        """Whether there is no state of any key."""
        return next((False for key in self._db.keys() if bytes(key)[:1] != RESERVED), True)  # type: ignore[arg-type]  # noqa: SIM118

    def close(self) -> None:
        self._db.close()
