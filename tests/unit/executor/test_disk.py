from pathlib import Path

import pytest

from services.executor import disk as disks
from services.executor.disk import Disk, DiskLocked

WAITS, ENDED_MS = 0, 1_790_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "executor-0"


def put(
    disk: Disk, shard: int, next_offset: int | None = None, topic_id: str = "T", **entries: tuple[bytes, int]
) -> None:
    batch = disk.batch(shard, topic_id)
    for action_id, (value, ended_at_ms) in entries.items():
        batch.put(action_id, value, ended_at_ms)
    batch.next_offset = next_offset
    batch.write()


def test_a_new_folder_knows_nothing(folder: Path) -> None:
    disk = Disk(folder)
    assert disk.position(0) is None
    assert disk.entry(0, "a") is None
    assert list(disk.open_entries(0)) == []
    assert not disk.knows_message("ww1", "m1")
    disk.close()


def test_ledger_and_position_survive_a_restart(folder: Path) -> None:
    disk = Disk(folder)
    put(disk, 3, 17, "topic", a=(b"A", WAITS), b=(b"B", ENDED_MS))
    put(disk, 4, 5, "topic", c=(b"C", WAITS))
    disk.close()
    disk = Disk(folder)
    assert (disk.position(3), disk.position(4), disk.position(5)) == (("topic", 17), ("topic", 5), None)
    assert list(disk.open_entries(3)) == [("a", b"A")]
    assert disk.entry(4, "c") == b"C"
    assert disk.ended_before(3, ENDED_MS + 1, 10) == [("b", ENDED_MS)]
    disk.close()


def test_a_disk_that_was_away_longer_than_tombstones_are_kept_is_read_anew(folder: Path) -> None:
    """Else it would take an action for open that has ended and been forgotten meanwhile, and do it again."""
    now_ms = [ENDED_MS]
    disk = Disk(folder, lambda: now_ms[0])
    put(disk, 0, 17, a=(b"prepared", WAITS))
    put(disk, 1, 17, a=(b"prepared", WAITS))
    now_ms[0] += 2 * 86_400_000
    assert (disk.position(0), disk.entry(0, "a")) == (("T", 17), b"prepared")
    put(disk, 1, 18)
    now_ms[0] += 2 * 86_400_000
    assert (disk.position(0), disk.entry(0, "a")) == (None, None)
    assert (disk.position(1), disk.entry(1, "a")) == (("T", 18), b"prepared")
    disk.close()


def test_nothing_of_a_batch_is_there_before_it_is_written(folder: Path) -> None:
    disk = Disk(folder)
    batch = disk.batch(0, "T")
    batch.put("a", b"A", WAITS)
    batch.next_offset = 9
    assert (disk.entry(0, "a"), disk.position(0)) == (None, None)
    batch.write()
    assert (disk.entry(0, "a"), disk.position(0)) == (b"A", ("T", 9))
    disk.close()


def test_a_batch_without_ledger_records_leaves_the_position(folder: Path) -> None:
    disk = Disk(folder)
    put(disk, 0, 9)
    put(disk, 0, None, a=(b"A", WAITS))
    assert disk.position(0) == ("T", 9)
    disk.close()


def test_a_later_entry_replaces_and_a_tombstone_forgets(folder: Path) -> None:
    disk = Disk(folder)
    put(disk, 0, 1, a=(b"waits", WAITS))
    put(disk, 0, 2, a=(b"ended", ENDED_MS))
    assert disk.entry(0, "a") == b"ended"
    assert list(disk.open_entries(0)) == []
    batch = disk.batch(0, "T")
    batch.delete("a", ENDED_MS)
    batch.write()
    assert (disk.entry(0, "a"), disk.ended_before(0, ENDED_MS + 1, 10)) == (None, [])
    disk.close()


def test_what_ended_long_ago_is_found_oldest_first_and_no_more_than_asked_for(folder: Path) -> None:
    disk = Disk(folder)
    put(disk, 0, 1, z=(b"", 100), y=(b"", 200), x=(b"", 300), open=(b"", WAITS))
    put(disk, 1, 1, other=(b"", 50))
    assert disk.ended_before(0, 300, 10) == [("z", 100), ("y", 200)]
    assert disk.ended_before(0, 301, 2) == [("z", 100), ("y", 200)]
    assert disk.ended_before(0, 301, 10) == [("z", 100), ("y", 200), ("x", 300)]
    disk.close()


def test_an_end_that_was_forgotten_elsewhere_is_named_until_it_is_unmarked_and_the_new_beginning_stays(
    folder: Path,
) -> None:
    disk = Disk(folder)
    put(disk, 0, 1, a=(b"ended", 100))
    batch = disk.batch(0, "T")
    batch.delete("a", 0)  # a tombstone of another owner, which does not say when it had ended
    batch.write()
    put(disk, 0, 2, a=(b"anew", WAITS))
    assert disk.ended_before(0, 101, 10) == [("a", 100)]
    disk.unmark(0, "a", 100)
    assert disk.ended_before(0, 101, 10) == []
    assert list(disk.open_entries(0)) == [("a", b"anew")]
    disk.close()


def test_a_shard_that_is_forgotten_takes_no_other_with_it(folder: Path) -> None:
    disk = Disk(folder)
    for shard in (0, 1, 2):
        put(disk, shard, 7, a=(b"A", ENDED_MS))
        disk.spool(shard, 0, 1, b"waits")
    disk.forget(1)
    assert [disk.entry(shard, "a") for shard in (0, 1, 2)] == [b"A", None, b"A"]
    assert [disk.position(shard) for shard in (0, 1, 2)] == [("T", 7), None, ("T", 7)]
    assert disk.ended_before(1, ENDED_MS + 1, 10) == []
    assert disk.spooled(1, 0, 1) == b"waits", "what waits is not the ledger"
    disk.close()


def test_made_messages_are_known_from_the_moment_they_are_noted_and_after_a_restart(folder: Path) -> None:
    disk = Disk(folder)
    disk.note_made("ww1", "m1")
    assert disk.knows_message("ww1", "m1")
    assert not disk.knows_message("ww2", "m1")
    batch = disk.batch(0, "T")
    batch.made("ww1", "m1")
    batch.write()
    disk.note_made("ww1", "m2")
    disk.close()
    disk = Disk(folder)
    assert disk.knows_message("ww1", "m1")
    assert not disk.knows_message("ww1", "m2"), "its batch was never written"
    disk.close()


def test_the_spool_is_gone_after_a_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_SPOOL_IN_MEMORY_BYTES", 10)
    disk = Disk(folder)
    disk.spool(0, 0, 1, b"in memory")
    disk.spool(0, 0, 2, b"on disk, for there is no more room")
    disk.close()
    disk = Disk(folder)
    for number in (1, 2):
        with pytest.raises(KeyError):
            disk.spooled(0, 0, number)
    disk.close()


@pytest.mark.parametrize("room", [0, 60, 1 << 20])
def test_waiting_actions_are_the_same_in_memory_and_on_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(disks, "_SPOOL_IN_MEMORY_BYTES", room)
    disk = Disk(folder)
    kept = {
        (shard, lane, number): f"{shard}/{lane}/{number}".encode()
        for shard in (0, 1)
        for lane in (0, 3)
        for number in range(5)
    }
    for place, value in kept.items():
        disk.spool(*place, value)
    assert {place: disk.spooled(*place) for place in kept} == kept
    disk.unspool(0, 0, 2)
    with pytest.raises(KeyError):
        disk.spooled(0, 0, 2)
    disk.drop_spool(0)
    for place, value in kept.items():
        if place[0] == 1:
            assert disk.spooled(*place) == value
        else:
            with pytest.raises(KeyError):
                disk.spooled(*place)
    disk.close()


def test_room_in_memory_that_became_free_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_SPOOL_IN_MEMORY_BYTES", 10)
    disk = Disk(folder)
    for number in range(100):
        disk.spool(0, 0, number, b"0123456789")
        disk.unspool(0, 0, number)
    disk.spool(0, 0, 100, b"0123456789")
    assert list(disk._held) == [(0, 0, 100)]
    disk.drop_spool(0)
    assert disk._held_bytes == 0
    disk.close()


def test_a_folder_belongs_to_one_process(folder: Path) -> None:
    disk = Disk(folder)
    with pytest.raises(DiskLocked, match="SIYU_INSTANCE"):
        Disk(folder)
    disk.close()


def test_a_damaged_ledger_is_begun_anew_for_kafka_holds_the_truth(folder: Path) -> None:
    disk = Disk(folder)
    put(disk, 0, 9, a=(b"A", WAITS))
    disk.close()
    for file in (folder / "ledger").glob("MANIFEST*"):
        file.write_bytes(b"scrambled")
    (folder / "ledger" / "CURRENT").write_bytes(b"nowhere")
    disk = Disk(folder)
    assert (disk.position(0), disk.entry(0, "a")) == (None, None)
    put(disk, 0, 1, b=(b"B", WAITS))
    assert disk.entry(0, "b") == b"B"
    disk.close()
