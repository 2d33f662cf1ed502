"""The simulator as a process: a corp's file, where its callbacks go, and what starts and ends it."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CORPS = """corps:
  - {corp_id: wwtest0000000001, agent_id: "1000002", secret: s1, callback_token: abc,
     callback_aes_key: jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C}
"""


@pytest.fixture
def corps(tmp_path: Path) -> Path:
    """A file with one corp."""
    path = tmp_path / "corps.yaml"
    path.write_text(CORPS)
    return path


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[str]]]:
    """Where callbacks go: answers 200 and notes the path."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", paths
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``python -m`` with no setting but those given; what still runs after the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*args: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SIYU_")}
        process = subprocess.Popen(
            [sys.executable, "-m", *args],
            env={**inherited, **environment},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def start(launch, corps: Path) -> Callable[..., subprocess.Popen[str]]:
    """``python -m simulator`` for that one corp; its own port for metrics is any that is free, unless one is given."""
    return lambda **environment: launch(
        "simulator", **{"SIYU_CORPS": str(corps), "SIYU_METRICS_PORT": "0", **environment}
    )
