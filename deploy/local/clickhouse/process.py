"""The server as a child process that keeps its data: after `stop()` or kill -9, `start()` finds every acknowledged row.

It dies with the Python process that started it.
"""

import subprocess
import sys
import time
from pathlib import Path

import httpx2

from deploy.local import launch
from deploy.local.child import ChildServer
from deploy.local.errors import StartFailed
from deploy.local.ports import answers, check_free

__all__ = ["LocalClickHouse"]


class LocalClickHouse(ChildServer):
    """A server on `host:port` with its data in `data_dir`."""

    def __init__(
        self, data_dir: Path, port: int = 8123, host: str = "127.0.0.1", *, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(data_dir, port, host)
        self._options = options

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "server.log"

    def start(self) -> None:
        """Start the server; `wait_ready` then waits for it. Raises PortTaken."""
        if self._process is not None and self._process.poll() is None:
            raise StartFailed(f"ClickHouse on {self.url} already runs (pid {self._process.pid})")
        check_free("ClickHouse", self.host, self.port, "SIYU_CLICKHOUSE_URL / --port")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        asked = ["--data-dir", str(self.data_dir), "--port", str(self.port), "--host", self.host, *self._options]
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                launch.command(sys.executable, "-m", "deploy.local.clickhouse", *asked),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches the Python process, which then stops the server in order.
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the server answers queries. Raises StartFailed when it ended or took longer."""
        if self._process is None:
            raise StartFailed("ClickHouse was not started")
        deadline = time.monotonic() + timeout_s
        while not answers(self.host, self.port):
            if self._process.poll() is not None:
                raise StartFailed(f"ClickHouse ended with status {self._process.returncode}: {self._last_line()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"ClickHouse on {self.url} not ready within {timeout_s:.0f} s: {self._last_line()}")
            time.sleep(0.02)
        self.execute("SELECT 1")

    def execute(self, sql: str) -> str:
        """Run one statement; the answer as text (TabSeparated unless it says FORMAT). Raises on any error."""
        answer = httpx2.post(self.url, content=sql.encode(), timeout=60)
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
        return answer.text

    def _last_line(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (see {self.log_file})"
