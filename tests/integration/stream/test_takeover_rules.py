"""The rules a takeover rests on, each shown to matter: with it nothing is lost or doubled, without it we see the fault.

In every test one member is frozen in the middle of a transaction for longer than its session while another takes its
partitions over, and wakes at the worst moment.
"""

import signal

import pytest
from stream_stage import Stage, await_frozen, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

PATIENT = {"session_timeout_ms": 1_000, "transaction_timeout_ms": 60_000}
FLUSH_FIRST = "flush before the offsets"
OFFSETS_FIRST = "offsets before the end"
STABLE_OFFSETS = "stable offsets"
UNCOMMITTED_END = "uncommitted end"


@pytest.mark.parametrize(
    ("without", "batch", "awaited", "fault"),
    [
        # The successor asks for the offsets and is made to wait, since they are pending.
        ([], 1, "waiting", None),
        ([FLUSH_FIRST], 1, "waiting", None),
        # It asks for the changelog's end first: too early only if records may still come after the offsets.
        ([OFFSETS_FIRST], 1, "reached: end asked", None),
        ([FLUSH_FIRST, OFFSETS_FIRST], 1, "reached: end asked", "states forgotten"),
        # It does not wait for pending offsets, and starts at those before them.
        ([STABLE_OFFSETS], 2, "reached: restoring", "doubled"),
    ],
)
def test_offsets_the_group_holds_come_with_their_states(
    stage: Stage, without: list[str], batch: int, awaited: str, fault: str | None
) -> None:
    stage.create_topics(partitions=1).send(1_000)
    faults = [(signal.SIGSTOP, "offsets sent", batch), (signal.SIGKILL, "committed", 1)]
    first = stage.worker("1", faults=faults, without=without, hold_back=True, **PATIENT)
    await_frozen(first)
    # Flushed first, all of the frozen transaction's records are in the log when its offsets are with the group.
    changed = stage.pending_keys(stage.changelog)
    assert changed == stage.pending_keys(stage.output)
    assert bool(changed) == (FLUSH_FIRST not in without)
    stage.worker("2", without=without, **PATIENT)
    stage.await_log("2", awaited)
    first.send_signal(signal.SIGCONT)
    assert first.wait(30) == -signal.SIGKILL
    stage.send(1_000)
    eventually(lambda: stage.lag() == 0, "all is processed")
    found = stage.faults(stage.sent)
    assert fault in found if fault else found == {}


@pytest.mark.parametrize(
    ("without", "awaited", "fault"),
    [([], "reached: restoring", None), ([UNCOMMITTED_END], "reached: restored", "states forgotten")],
)
def test_restore_passes_the_open_transaction_of_a_frozen_member(
    stage: Stage, without: list[str], awaited: str, fault: str | None
) -> None:
    """What its successor has committed behind that transaction is committed, and yet hidden as long as it is open."""
    stage.create_topics(partitions=1).send(1_000)
    faults = [(signal.SIGSTOP, "produced", 3), (signal.SIGSTOP, "flushed", 1)]
    frozen = stage.worker("1", faults=faults, hold_back=True, **PATIENT)
    await_frozen(frozen)
    successor = stage.worker("2", **PATIENT)
    stage.outputs(1_000)
    frozen.send_signal(signal.SIGCONT)
    await_frozen(frozen)  # its records have got in before those that the successor writes from now on
    stage.send(1_000)
    eventually(lambda: stage.lag() == 0, "the successor has committed")
    successor.kill()
    stage.worker("3", without=without, **PATIENT)
    stage.await_log("3", awaited)
    frozen.kill()
    stage.end_transaction_of("1")
    stage.send(1_000)
    eventually(lambda: stage.lag() == 0, "all is processed")
    found = stage.faults(stage.sent)
    assert fault in found if fault else found == {}
