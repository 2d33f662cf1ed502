"""What ends is started again as a supervisor would; what a restart cannot mend is a finding."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from chaos_processes import Supervised

PATIENCE_S = 20.0
SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def supervised(tmp_path: Path):  # type: ignore[no-untyped-def]
    started: list[Supervised] = []

    def start(program: str, *, broker_away: bool = False, may_give_up: bool = True) -> Supervised:
        kafka = SimpleNamespace(troubled=lambda: broker_away)
        command, log = [sys.executable, "-c", program], tmp_path / "log"
        process = Supervised("p", command, {}, log, kafka, print, may_give_up=may_give_up)  # type: ignore[arg-type]
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


def tended(process: Supervised, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline
        process.tend()
        time.sleep(0.01)


@pytest.mark.parametrize("status", [0, 1, 78])
def test_an_end_that_nobody_asked_for_is_a_finding(supervised: Callable[..., Supervised], status: int) -> None:
    process = supervised(f"raise SystemExit({status})")
    tended(process, lambda: process.problem is not None)
    assert process.starts == 1


@pytest.mark.parametrize("program", ["raise SystemExit(75)", "import os; os.kill(os.getpid(), 9)"])
def test_a_fenced_or_dead_process_is_started_again(supervised: Callable[..., Supervised], program: str) -> None:
    process = supervised(program)
    tended(process, lambda: process.starts == 3)
    assert process.problem is None


def test_a_killed_process_loses_its_disk_before_it_starts_again(
    supervised: Callable[..., Supervised], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    process = supervised(SLEEP)
    assert process.kill(0.1, disk=disk)
    assert not process.kill(0.1), "it is away already"
    tended(process, lambda: process.starts == 2)
    assert not disk.exists()


def test_a_frozen_process_goes_on(supervised: Callable[..., Supervised], tmp_path: Path) -> None:
    process = supervised(f"import time\nwhile True: open({str(tmp_path / 'beat')!r}, 'a').write('.'); time.sleep(0.01)")
    beat = tmp_path / "beat"
    tended(process, lambda: beat.exists())
    assert process.freeze(0.3)
    assert not process.freeze(0.3), "it is frozen already"
    size = beat.stat().st_size
    tended(process, lambda: beat.stat().st_size > size + 10)
    assert process.starts == 1


@pytest.mark.parametrize(
    ("broker_away", "may_give_up", "starts"), [(True, True, 2), (False, True, 1), (True, False, 1)]
)
def test_a_stop_may_fail_only_while_the_broker_is_away_and_only_if_it_may_at_all(
    supervised: Callable[..., Supervised], tmp_path: Path, broker_away: bool, may_give_up: bool, starts: int
) -> None:
    listening = tmp_path / "listening"
    program = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); "
    program += f"open({str(listening)!r}, 'w'); time.sleep(60)"
    process = supervised(program, broker_away=broker_away, may_give_up=may_give_up)
    tended(process, listening.exists)
    assert process.restart()
    tended(process, lambda: process.starts == starts and (starts == 2 or process.problem is not None))
