"""A broker that goes away, in order or at once, for longer than a session and a transaction last, costs only time.

Kafka 4.3 takes a partition without a leader for a deleted one (KAFKA-20734): the only broker, on its way out or in,
forgets the markers of a transaction whose end it has decided, and with them the end. So no transaction ends here while
the broker comes or goes; one is held open in the middle.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_stage import Stage, await_frozen, eventually

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.ops.lifeline import Lifeline
from siyu.stream import CutOff, Fenced

AWAY_SECONDS = float(os.environ.get("BROKER_AWAY_SECONDS", "3"))
"""Twice, and longer than what runs out meanwhile; BROKER_AWAY_SECONDS=60 takes three minutes."""
SESSION_MS = 1_000
MINUTES_MS = 60_000 + int(AWAY_SECONDS) * 1_000

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120 + 3 * AWAY_SECONDS)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """One that this test may stop."""
    (port,) = free_ports(1)
    with LocalKafka(tmp_path / "kafka", port) as broker:
        yield broker


class Hasty:
    """A worker frozen in the middle of a transaction, and started again when it was fenced."""

    def __init__(self, stage: Stage, transaction_timeout_ms: int) -> None:
        self._stage = stage
        self._timeouts = {"session_timeout_ms": SESSION_MS, "transaction_timeout_ms": transaction_timeout_ms}
        self.worker: subprocess.Popen[bytes] = stage.worker(faults=[(signal.SIGSTOP, "flushed", 3)], **self._timeouts)
        stage.send(1_000)
        await_frozen(self.worker)

    def wake(self) -> None:
        self.worker.send_signal(signal.SIGCONT)

    def has_caught_up(self) -> bool:
        if self.worker.poll() is not None:
            assert self.worker.returncode == Fenced.exit_code
            self.worker = self._stage.worker(**self._timeouts)
        return self._stage.lag() == 0

    def end(self) -> None:
        eventually(self.has_caught_up, "caught up")
        self._stage.assert_exact()
        self.worker.terminate()
        assert self.worker.wait(20) == 0


def test_broker_away_for_longer_than_sessions_and_transactions(broker: LocalKafka, tmp_path: Path, unique_name) -> None:
    patient = Stage(broker.bootstrap, unique_name("patient"), tmp_path).create_topics()
    stage = Stage(broker.bootstrap, unique_name("hasty"), tmp_path).create_topics()

    def be_away() -> None:
        eventually(lambda: not waiting.runtime.ready(), "not ready")
        assert waiting.runtime.alive()
        time.sleep(AWAY_SECONDS)
        broker.start()
        broker.wait_ready()
        patient.send(200)
        patient.assert_exact()
        assert waiting.runtime.ready()

    try:
        waiting = patient.run(session_timeout_ms=2 * MINUTES_MS).ready()
        hasty = Hasty(stage, transaction_timeout_ms=1_500)
        patient.send(200)
        patient.assert_exact()
        broker.stop()
        hasty.wake()  # finds nobody to send its offsets to
        be_away()
        hasty.end()

        hasty = Hasty(stage, transaction_timeout_ms=MINUTES_MS)
        broker.kill()
        be_away()
        hasty.wake()
        hasty.end()
        assert waiting.error is None
    finally:
        patient.close()
        stage.close()


@pytest.mark.parametrize("busy", [True, False], ids=["in a transaction", "with nothing to do"])
def test_brokers_that_answer_others_and_not_us_are_found_again_by_a_restart(
    broker: LocalKafka, tmp_path: Path, unique_name, busy: bool
) -> None:
    # A frozen broker answers nobody; who else is answered is only told here.
    # librdkafka tries to send offsets for as long as a transaction may last.
    patience = {"session_timeout_ms": MINUTES_MS, "transaction_timeout_ms": 4_000}
    stage = Stage(broker.bootstrap, unique_name("cut"), tmp_path).create_topics()
    try:
        first = stage.run(**patience).ready()
        stage.send(100)
        stage.assert_exact()
        first.runtime._lifeline = Lifeline({}, patience_s=0, ask=lambda _: True)
        first.runtime._reached = lambda point: broker_stops(broker) if busy and point == "flushed" else None
        if busy:
            stage.send(100)
        else:
            broker_stops(broker)
        eventually(first.ended, "ended")
        assert isinstance(first.error, CutOff)
        assert first.error.exit_code == 75
        os.kill(broker.pid or 0, signal.SIGCONT)
        # As a supervisor does: missed by its controller, the broker may for a moment leave a new client without it too.
        while isinstance((again := stage.run(**patience)).settled().error, CutOff):
            pass
        assert again.error is None
        stage.send(100)
        stage.assert_exact()
    finally:
        os.kill(broker.pid or 0, signal.SIGCONT)
        stage.close()


def broker_stops(broker: LocalKafka) -> None:
    os.kill(broker.pid or 0, signal.SIGSTOP)
