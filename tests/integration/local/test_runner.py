"""The runner keeps its word: order, readiness, new starts, a clean end, and nobody left behind whatever happens."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from deploy.local.errors import PortTaken, StartFailed
from deploy.local.ports import answers, free_ports
from deploy.local.runner import Event, Port, Process, Runner

# A server that is ready a moment after its start, ends on SIGTERM, and writes down when it began and ended.
SERVER = textwrap.dedent(
    """
    import http.server, os, signal, sys, time
    name, port, diary = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    def note(what):
        with open(diary, "a") as file:
            file.write(f"{what} {name}\\n")
    note("began")
    time.sleep(0.2)
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(name.encode())
        def log_message(self, *_): pass
    def stop(*_):
        note("ended")
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("serving", flush=True)
    http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
    """
)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
)
PARENT = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *arguments)


def server(name: str, port: int, diary: Path, *depends_on: str) -> Process:
    return Process(
        name,
        python(SERVER, name, str(port), str(diary)),
        ready=f"http://127.0.0.1:{port}/",
        ports=(Port(port, f"SIYU_PORT of {name}"),),
        depends_on=depends_on,
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 other processes do not set our events
            await asyncio.sleep(0.01)


def entries(diary: Path) -> list[str]:
    return diary.read_text().splitlines()


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    path = tmp_path / "diary"
    path.touch()
    return path


async def test_starts_in_order_and_stops_in_reverse(tmp_path: Path, diary: Path) -> None:
    first, second, third = free_ports(3)
    events: list[Event] = []
    declared = [
        server("third", third, diary, "second"),
        server("first", first, diary),
        Process(
            "step", python(f"open({str(diary)!r}, 'a').write('ran step\\n')"), depends_on=("first",), one_shot=True
        ),
        server("second", second, diary, "step"),
    ]
    runner = Runner(declared, tmp_path / "log", on_event=events.append)
    await runner.start()
    try:
        assert httpx2.get(f"http://127.0.0.1:{third}/").text == "third"
        assert all(runner.process(name).ready for name in ("first", "step", "second", "third"))
        assert runner.log_file("first").read_text() == "serving\n"
    finally:
        await runner.stop()
    begun = ["began first", "ran step", "began second", "began third"]
    assert entries(diary) == [*begun, "ended third", "ended second", "ended first"]
    assert [(event.process, event.kind) for event in events if event.kind in ("ready", "done", "stopped")] == [
        ("first", "ready"),
        ("step", "done"),
        ("second", "ready"),
        ("third", "ready"),
        ("third", "stopped"),
        ("second", "stopped"),
        ("first", "stopped"),
    ]


async def test_a_killed_process_is_started_again(tmp_path: Path, diary: Path) -> None:
    (port,) = free_ports(1)
    events: list[Event] = []
    runner = Runner([server("one", port, diary)], tmp_path / "log", on_event=events.append)
    await runner.start()
    try:
        before = runner.process("one").pid
        await runner.kill("one")
        assert not runner.process("one").ready
        await runner.wait_ready("one")
        assert runner.process("one").pid not in (None, before)
        assert runner.process("one").restarts == 1
        assert httpx2.get(f"http://127.0.0.1:{port}/").text == "one"
    finally:
        await runner.stop()
    assert [event.kind for event in events] == ["started", "ready", "died", "started", "ready", "stopped"]
    assert "killed by SIGKILL; starting again in 0.5 s" in events[2].text
    assert entries(diary) == ["began one", "began one", "ended one"]


async def test_a_process_that_never_comes_up_fails_the_start_and_stops_the_rest(tmp_path: Path, diary: Path) -> None:
    (port,) = free_ports(1)
    broken = Process(
        "broken", python("import sys; sys.exit('the reason')"), depends_on=("one",), ready="tcp://127.0.0.1:1"
    )
    runner = Runner([server("one", port, diary), broken], tmp_path / "log", on_event=lambda _: None)
    with pytest.raises(StartFailed, match=r"broken ended with status 1: the reason \(see .*broken\.log\)"):
        await runner.start()
    assert entries(diary) == ["began one", "ended one"]
    assert runner.process("one").pid is None


async def test_a_failed_step_fails_the_start(tmp_path: Path) -> None:
    step = Process("step", python("import sys; print('no table'); sys.exit(2)"), one_shot=True)
    after = Process("after", python("raise SystemExit('must not run')"), depends_on=("step",))
    runner = Runner([step, after], tmp_path / "log", on_event=lambda _: None)
    with pytest.raises(StartFailed, match="step ended with status 2: no table"):
        await runner.start()
    assert not runner.log_file("after").exists()


async def test_a_process_that_is_never_ready_fails_the_start(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    never = Process("never", ("sleep", "600"), ready=f"tcp://127.0.0.1:{port}", ready_timeout_s=0.3)
    runner = Runner([never], tmp_path / "log", on_event=lambda _: None)
    with pytest.raises(StartFailed, match=r"never was not ready within 0 s: it said nothing"):
        await runner.start()
    assert runner.process("never").pid is None


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    runner = Runner(
        [Process("absent", ("no-such-program",), ready="tcp://127.0.0.1:1")], tmp_path / "log", on_event=lambda _: None
    )
    with pytest.raises(StartFailed, match="cannot run no-such-program"):
        await runner.start()


async def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path, diary: Path) -> None:
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        runner = Runner([server("one", free, diary), server("two", taken, diary)], tmp_path / "log")
        with pytest.raises(PortTaken, match=f"two: port {taken} .* choose another port with SIYU_PORT of two"):
            await runner.start()
    assert entries(diary) == []


async def test_who_does_not_stop_is_killed_and_so_is_who_it_started(tmp_path: Path) -> None:
    events: list[Event] = []
    stubborn = Process("stubborn", python(STUBBORN), stop_grace_s=0.3)
    parent = Process("parent", python(PARENT))
    runner = Runner([stubborn, parent], tmp_path / "log", on_event=events.append)
    await runner.start()
    await until(lambda: runner.log_file("parent").read_text().endswith("\n"))
    await until(lambda: runner.log_file("stubborn").read_text() == "here\n")
    pids = [runner.process("stubborn").pid, runner.process("parent").pid, int(runner.log_file("parent").read_text())]
    await runner.stop()
    await until(lambda: not any(alive(pid) for pid in pids if pid))
    assert {event.text for event in events if event.kind == "stopped"} == {
        "did not stop within 0 s: killed",
        "stopped",
    }


def test_declarations_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['nobody'\]"):
        Runner([Process("one", ("true",), depends_on=("nobody",))], tmp_path)
    circle = [Process("one", ("true",), depends_on=("two",)), Process("two", ("true",), depends_on=("one",))]
    with pytest.raises(ValueError, match="in a circle"):
        Runner(circle, tmp_path)
    with pytest.raises(ValueError, match="same name"):
        Runner([Process("one", ("true",)), Process("one", ("true",))], tmp_path)


# The runner as a program of its own, to be ended from outside.
PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from deploy.local.runner import Process, Runner
    runner = Runner(
        [Process("server", [sys.executable, "-c", *sys.argv[2:]], ready="http://127.0.0.1:" + sys.argv[4] + "/"),
         Process("sleeper", ["sleep", "600"], depends_on=("server",))],
        Path(sys.argv[1]),
    )
    asyncio.run(runner.run())
    """
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_runner_nobody_is_left_behind(tmp_path: Path, diary: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    command = python(PROGRAM, str(tmp_path / "log"), SERVER, "server", str(port), str(diary))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        lines = []
        while sum(" ready in " in line for line in lines) < 2:
            lines.append(program.stdout.readline())
        pids = [int(line.rpartition("pid ")[2]) for line in lines if "started, pid" in line]
        assert all(alive(pid) for pid in pids)
        os.kill(program.pid, number)
        assert program.wait(30) == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in pids)
    assert not answers("127.0.0.1", port)
    assert ("ended server" in diary.read_text()) == (number is not signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_the_middle_of_the_start_is_clean(tmp_path: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    command = python(PROGRAM, str(tmp_path / "log"), "import time; time.sleep(600)", "server", str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline().rpartition("pid ")[2])
        os.kill(program.pid, number)
        assert program.wait(30) == 0
    assert not alive(pid)
