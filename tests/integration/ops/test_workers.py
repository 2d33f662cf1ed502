"""Several workers as one service: seen as one, restarted one by one, stopped together, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from siyu.events import schemas_dir
from siyu.ops.topics import Cluster, load_topics

pytestmark = pytest.mark.integration

SUPERVISE = """
import sys
from siyu.ops.settings import ServiceSettings
from siyu.ops.workers import supervisor
supervisor.STOP_SECONDS = float(sys.argv[2])
supervisor.PAUSES = tuple(pause / 10 for pause in supervisor.PAUSES)
sys.exit(supervisor.run_workers("obedient_service", ServiceSettings(), int(sys.argv[1])))
"""


def eventually(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class Parent:
    """The supervising process and what it shows."""

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        self.folder = folder
        self.log_file = folder / "log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIYU_")}
        own = {"SIYU_STATE_DIR": str(folder), "SIYU_METRICS_PORT": "0", "PYTHONPATH": str(Path(__file__).parent)}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], env={**inherited, **own, **environment}, stdout=log, stderr=log
            )

    def lines(self, event: str | None = None, **fields: object) -> list[dict[str, Any]]:
        whole = [line for line in self.log_file.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        lines = [json.loads(line) for line in whole]
        wanted = fields if event is None else {"event": event, **fields}
        return [line for line in lines if wanted.items() <= line.items()]

    def get(self, path: str) -> tuple[int, str]:
        (started,) = self.lines("workers_started")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{started['port']}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def answers(self, path: str, status: int, text: str) -> None:
        eventually(lambda: self.get(path) == (status, text), f"{path} says {text}")

    def samples(self, name: str) -> dict[str, float]:
        """Worker → value."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {s.labels["worker"]: s.value for family in families for s in family.samples if s.name == name}

    def ready(self) -> Parent:
        eventually(lambda: self.lines("workers_started") and self.get("/readyz")[0] == 200, "all workers are ready")
        return self

    def tell(self, worker: int, what: str) -> None:
        draft = self.folder / f"{worker}.new"
        draft.write_text(what)
        draft.rename(self.folder / str(worker))

    def pids(self) -> dict[int, int]:
        """Worker → its newest process."""
        return {line["worker"]: line["pid"] for line in self.lines("worker_started")}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def gone(pid: int) -> bool:
    """No such process, or one that is dead and only waits for its new parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    """`start(workers, stop_seconds)` runs the obedient service under the supervisor; all is ended afterwards."""
    parents: list[Parent] = []

    def start(workers: int = 2, stop_seconds: float = 25, **environment: str) -> Parent:
        parents.append(Parent(tmp_path, "-c", SUPERVISE, str(workers), str(stop_seconds), **environment))
        return parents[-1]

    yield start
    for parent in parents:
        parent.process.kill()
        parent.process.wait()
        pids = list(parent.pids().values())
        eventually(lambda pids=pids: all(map(gone, pids)), "workers are gone")


def test_workers_are_seen_as_one_service(start: Callable[..., Parent]) -> None:
    parent = start(2, SIYU_INSTANCE="berlin").ready()
    instances = {(0, "berlin-0"), (1, "berlin-1")}
    eventually(
        lambda: {(line["worker"], line["instance"]) for line in parent.lines("service_started")} == instances,
        "each worker is an instance of its own",
    )
    # A busy machine may keep a worker from answering in time, so each answer is waited for.
    parent.answers("/livez", 200, "ok\n")
    eventually(lambda: parent.samples("obedient_turns_total") == {"0": 1.0, "1": 2.0}, "metrics of both")
    assert parent.samples("siyu_worker_up") == {"0": 1.0, "1": 1.0}
    parent.tell(1, "not restored yet")
    parent.answers("/readyz", 503, "worker 1: not restored yet\n")
    parent.answers("/livez", 200, "ok\n")

    os.kill(parent.pids()[0], signal.SIGSTOP)
    try:
        parent.answers("/readyz", 503, "worker 0: does not answer; worker 1: not restored yet\n")
        eventually(lambda: parent.samples("obedient_turns_total") == {"1": 2.0}, "metrics of the other one")
        assert parent.samples("siyu_worker_up") == {"0": 1.0, "1": 1.0}
    finally:
        os.kill(parent.pids()[0], signal.SIGCONT)
    parent.answers("/readyz", 503, "worker 1: not restored yet\n")
    assert parent.end(signal.SIGTERM) == 0
    assert {line["worker"] for line in parent.lines("service_stopped")} == {0, 1}
    assert "Traceback" not in parent.log_file.read_text()


def test_a_worker_that_ends_is_started_again_alone_after_a_growing_pause(start: Callable[..., Parent]) -> None:
    parent = start(2).ready()
    other = parent.pids()[0]
    for count, end in enumerate(("75", "3", "0", "SIGKILL"), 1):
        if end.isdigit():
            parent.tell(1, end)
        else:
            os.kill(parent.pids()[1], signal.SIGKILL)
        eventually(lambda count=count: len(parent.lines("worker_ended")) == count, "the end is noticed")
        parent.answers("/livez", 200, "ok\n")  # nobody else need do anything about it
        eventually(lambda count=count: len(parent.lines("service_started", worker=1)) == count + 1, "it runs again")
        parent.ready()
    ends = parent.lines("worker_ended")
    assert [(end["worker"], end["reason"], end["status"]) for end in ends] == [
        (1, "fenced", 75),
        (1, "crashed", 3),
        (1, "ended", 0),
        (1, "killed", -signal.SIGKILL),
    ]
    pauses = [end["retry_in_seconds"] for end in ends]
    assert pauses == sorted(set(pauses))
    assert pauses[0] > 0
    metrics = parent.get("/metrics")[1]
    for reason in ("fenced", "crashed", "ended", "killed"):
        assert f'siyu_worker_restarts_total{{reason="{reason}",worker="1"}} 1.0' in metrics
    assert parent.pids()[0] == other
    assert len({line["port"] for line in parent.lines("service_started", worker=1)}) == 1


def test_a_worker_that_needs_a_person_stops_all(start: Callable[..., Parent]) -> None:
    parent = start(2).ready()
    parent.tell(0, "78")
    assert parent.process.wait(60) == 78
    assert [line["worker"] for line in parent.lines("service_stopped")] == [1]
    assert [line["worker"] for line in parent.lines("worker_needs_a_person")] == [0]


def test_a_worker_that_does_not_stop_is_killed(start: Callable[..., Parent]) -> None:
    parent = start(1, stop_seconds=0.5).ready()
    parent.tell(0, "deaf")
    parent.answers("/readyz", 503, "worker 0: deaf\n")
    assert parent.end(signal.SIGINT) == 0
    assert [line["worker"] for line in parent.lines("worker_killed")] == [0]
    assert all(map(gone, parent.pids().values()))


def test_a_second_signal_does_not_wait(start: Callable[..., Parent]) -> None:
    parent = start(2, stop_seconds=600).ready()
    parent.tell(0, "deaf")
    parent.answers("/readyz", 503, "worker 0: deaf\n")
    parent.process.send_signal(signal.SIGTERM)
    eventually(lambda: parent.lines("service_stopped", worker=1), "the other one has stopped")
    assert parent.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert all(map(gone, parent.pids().values()))


def test_workers_die_with_a_parent_that_is_killed(start: Callable[..., Parent]) -> None:
    parent = start(2).ready()
    os.kill(parent.pids()[1], signal.SIGSTOP)  # even one that could not react to anything
    parent.process.kill()
    parent.process.wait()
    eventually(lambda: all(map(gone, parent.pids().values())), "workers are gone")


def test_a_taken_port_needs_a_person(start: Callable[..., Parent]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        parent = start(2, SIYU_METRICS_PORT=str(taken.getsockname()[1]))
        assert parent.process.wait(60) == 78
    assert parent.lines("port_taken")
    assert not parent.pids()


def test_a_real_service_divides_its_partitions_among_its_workers(kafka, tmp_path: Path) -> None:
    """Through the command line, as an operator starts it."""
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)
    parent = Parent(
        tmp_path, "-m", "siyu", "run", "performance", "--workers", "2", SIYU_KAFKA_BOOTSTRAP=kafka.bootstrap
    )
    try:
        parent.ready()
        eventually(
            lambda: parent.samples("siyu_stream_assigned_partitions") == {"0": 2.0, "1": 2.0},
            "each has two of the four partitions",
        )
        folders = {path.parent.name: path.name for path in (tmp_path / "performance").glob("*/p*")}
        assert set(folders) == {"0-0", "0-1"}
        assert parent.end(signal.SIGTERM) == 0
        assert {line["worker"] for line in parent.lines("service_stopped")} == {0, 1}
    finally:
        parent.process.kill()
        parent.process.wait()
