"""The processes of a run and who looks after them: what ends is started again as a supervisor would, and an end that no
restart can mend is a finding. Nothing here blocks for long: ``tend`` is called all the time and does what is due.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from chaos_broker import Cluster

from deploy.local import launch

FENCED = 75
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
# A process that ran this long has recovered: the next backoff begins anew.
STEADY_S = 10.0
STOP_GRACE_S = 30.0

Say = Callable[[str], None]


class Supervised:
    """One process that is started again whenever it ends."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        kafka: Cluster,
        say: Say,
        *,
        may_give_up: bool = True,
    ) -> None:
        """``may_give_up``: asked to stop without the broker, it may leave its batch to its next start (status 1)."""
        self.name = name
        self.log = log
        self.starts = 0
        self.ends: Counter[int] = Counter()
        """Exit status, negative for a signal → times."""
        self.problem: str | None = None
        """An end that restarting does not mend."""
        self._command = command
        self._env = env
        self._kafka = kafka
        self._say = say
        self._may_give_up = may_give_up
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._failures = 0
        self._thaw_at: float | None = None
        self._killed_for: float | None = None
        self._stop_asked: float | None = None
        self._disk: Path | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(*self._command),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches the run, which ends everything itself.
                start_new_session=True,
            )
        self.starts += 1
        self._started_at, self._start_at = time.monotonic(), None
        self._killed_for = None

    # -- faults; False when the process is away already --------------------------------------------------------

    def kill(self, away_s: float, *, disk: Path | None = None) -> bool:
        """SIGKILL, and another start so many seconds later; with ``disk``, that folder is lost too."""
        if not self.running:
            return False
        assert self._process is not None
        self._killed_for, self._disk = away_s, disk
        self._process.kill()
        self._process.wait()
        return True

    def freeze(self, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT so many seconds later."""
        if not self.running or self._thaw_at is not None:
            return False
        self._signal(signal.SIGSTOP)
        self._thaw_at = time.monotonic() + seconds
        return True

    def restart(self) -> bool:
        """SIGTERM; it starts again when it has ended."""
        if not self.running or self._stop_asked is not None:
            return False
        self._signal(signal.SIGTERM)
        self._stop_asked = time.monotonic()
        return True

    def thaw(self) -> None:
        if self._thaw_at is not None:
            self._signal(signal.SIGCONT)
            self._thaw_at = None

    # -- the supervisor ----------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tend(self) -> None:
        """Thaws, notices an end, starts again: whatever is due."""
        now = time.monotonic()
        if self._thaw_at is not None and now >= self._thaw_at:
            self.thaw()
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            self._ended(status, now)
        if self._stop_asked is not None and self._thaw_at is None and now - self._stop_asked > STOP_GRACE_S:
            self._say(f"{self.name} did not stop within {STOP_GRACE_S:.0f} s")
            self.kill(0.0)
        if self._start_at is not None and now >= self._start_at:
            self.start()

    def _ended(self, status: int, now: float) -> None:
        self.ends[status] += 1
        asked, self._stop_asked, self._thaw_at = self._stop_asked is not None, None, None
        if status == -signal.SIGKILL and self._killed_for is not None:
            if self._disk is not None:
                shutil.rmtree(self._disk, ignore_errors=True)
                self._disk = None
            self._start_at = now + self._killed_for
            return
        if asked and status in (0, -signal.SIGTERM):  # the latter: asked before it could listen
            self._start_at = now
            return
        if status == 1 and asked and self._may_give_up and self._kafka.troubled():
            # It left its batch to its next start, since the broker did not answer within its grace.
            self._say(f"{self.name} stopped without the broker")
            self._start_at = now
            return
        self._say(f"{self.name} ended with status {status}")
        if status == FENCED or status < 0:
            self._failures = 0 if now - self._started_at > STEADY_S else self._failures
            self._start_at = now + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
            self._failures += 1
        else:
            self.problem = f"{self.name} ended with status {status}; see {self.log}"

    def stop(self) -> None:
        """For good, and in order. Raises subprocess.TimeoutExpired."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            self._process.wait(STOP_GRACE_S)
            self._process = None

    def end(self) -> None:
        """For good, and at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
