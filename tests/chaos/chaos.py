"""Three journey, two performance and two executor workers under load; at random they are killed, frozen, restarted and
robbed of their disks, executors in the middle of a send, and the broker goes away. Then the audit must find nothing
lost, nothing double and nothing different, and the platform's record of calls nobody reached twice or not at all.

One seed gives the load and the faults; they are printed before the run and again when it fails. The same seed plays the
same faults at the same moments; what exactly they hit is up to the machine.

在负载与群发进行中随机杀死、冻结、重启进程，清空磁盘，中断 broker，最后审计必须为零差异，且每位客户恰好收到一次。

Exit status: 0 clean; 1 differences, or something that did not come back; 2 could not run; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chaos_actions import Intents
from chaos_broker import Cluster
from chaos_checks import ALL_GROUPS, STREAM_GROUPS, Ends, arrived, audit, check_acts, check_topics, wait_until_drained
from chaos_load import CORPS, Load, Sender
from chaos_plan import EXECUTOR_SESSION_S, EXECUTORS, GAP_S, SESSION_S, STREAMS, TRANSACTION_S, WORKERS, Fault, draw
from chaos_platform import Platform
from chaos_processes import FENCED, Supervised

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.drain import DrainTimeout
from deploy.local.errors import LocalStackError
from deploy.local.ports import free_ports
from siyu.audit import AuditError, Report
from siyu.events import schemas_dir
from siyu.ops import topics
from siyu.ops.topics import TopicsError
from siyu.warehouse import WarehouseError, connect
from siyu.warehouse.migrations import migrate

WITHOUT_TRANSACTIONS = Path(__file__).with_name("chaos_without_transactions.py")
SHORT_S, LONG_S = 60.0, 300.0
# Without transactions one kill at a bad moment is enough, so a short run with many kills says all.
DENSE_GAP_S = (0.8, 2.4)
WARM_UP_S = 2.0
RETURN_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 180.0
"""For everybody's outcome, while business time is hurried."""
DRAIN_TIMEOUT_S = 120.0
STATUS_EVERY_S = 10.0
TICK_S = 0.05
INTERRUPTED = 130

Say = Callable[[str], None]


class CouldNotRun(Exception):
    """There is no result, neither good nor bad; the message says why."""


class Broken(Exception):
    """Something did not come back, or ended in a way that no restart mends: a finding, and the end of the run."""


@dataclass(frozen=True)
class Chaos:
    """One run, as asked for."""

    seed: int
    seconds: float
    folder: Path
    """For data and logs: there, empty, and nobody else's."""
    rate: float = 300.0
    transactions: bool = True

    @property
    def workers(self) -> tuple[str, ...]:
        """Without transactions the executors are left out: they cannot do without."""
        return WORKERS if self.transactions else STREAMS

    @property
    def groups(self) -> tuple[str, ...]:
        """Who has to have read everything."""
        return ALL_GROUPS if self.transactions else STREAM_GROUPS

    def faults(self) -> tuple[Fault, ...]:
        return draw(self.seed, self.seconds, GAP_S if self.transactions else DENSE_GAP_S, self.workers)

    def __str__(self) -> str:
        what = f"seed {self.seed}, {self.seconds:.0f} s, {self.rate:.0f} events/s"
        return "\n".join((what + ("" if self.transactions else ", without transactions"), *map(str, self.faults())))


@dataclass
class Result:
    """What a run came to. ``clean`` is the proof; everything else explains it."""

    seed: int
    chaos_s: float
    transactions: bool
    clean: bool = False
    problems: list[str] = field(default_factory=list)
    audit: dict[str, int] = field(default_factory=dict)
    topics: dict[str, int] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    """What the executors did, and what of it must not be."""
    events_sent: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    """Kind → how many were carried out."""
    faults_without_target: int = 0
    """Whose target was away already."""
    restarts: int = 0
    fenced_exits: int = 0
    transaction_aborts: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """Exit status of a worker, negative for a signal → how many."""
    duration_s: float = 0.0


def run(chaos: Chaos, say: Say) -> Result:
    """Plays one run to its end; nothing is left running. Raises CouldNotRun."""
    say(str(chaos))
    (chaos.folder / "plan.txt").write_text(f"{chaos}\n")
    stage = _Stage(chaos, say)
    try:
        return stage.play()
    except (LocalStackError, TopicsError, WarehouseError, AuditError) as error:
        raise CouldNotRun(str(error)) from error
    finally:
        stage.end()


class _Stage:
    """The processes of one run, and what happens to them."""

    def __init__(self, chaos: Chaos, say: Say) -> None:
        self._chaos = chaos
        self._tell = say
        self._began = self._chaos_began = time.monotonic()
        broker_port, controller_port, clickhouse_port, platform_port, callbacks_port = free_ports(5)
        self._kafka = Cluster(chaos.folder / "kafka", broker_port, controller_port, self._say)
        self._clickhouse = LocalClickHouse(chaos.folder / "clickhouse", clickhouse_port)
        self._state = chaos.folder / "state"
        self._logs = chaos.folder / "log"
        self._logs.mkdir()
        self._platform = Platform(
            chaos.folder / "platform", self._kafka.bootstrap, platform_port, callbacks_port, chaos.seed, chaos.seconds
        )
        self._workers = {name: self._worker(name) for name in chaos.workers}
        self._others = [self._supervised("sink", "-m", "services.sink")]
        self._simulator = self._supervised("simulator", "-m", "simulator", **self._platform.own_environment)
        if chaos.transactions:
            self._others += [
                self._simulator,
                self._supervised("ingest", "-m", "services.ingest", **self._platform.environment),
                self._supervised(
                    "planner", "-m", "services.planner", **self._platform.environment, **self._stream("0")
                ),
            ]
        self._intents: Intents | None = None
        self._ends: Ends | None = None
        self._sender = Sender(self._kafka.bootstrap, Load(chaos.seed, chaos.rate))
        self._carried_out: Counter[str] = Counter()
        self._without_target = 0
        self._status_due = 0.0

    def _say(self, text: str) -> None:
        self._tell(f"{time.monotonic() - self._chaos_began:6.1f} s  {text}")

    def _worker(self, name: str) -> Supervised:
        service, _, instance = name.rpartition("-")
        if name in EXECUTORS:
            return self._supervised(
                name,
                "-m",
                "services.executor",
                **self._platform.environment,
                SIYU_INSTANCE=instance,
                SIYU_STATE_DIR=str(self._state),
                SIYU_SESSION_TIMEOUT_MS=str(int(EXECUTOR_SESSION_S * 1000)),
            )
        how = ["-m", f"services.{service}"] if self._chaos.transactions else [str(WITHOUT_TRANSACTIONS), service]
        return self._supervised(name, *how, **self._stream(instance))

    def _stream(self, instance: str) -> dict[str, str]:
        return {
            "SIYU_INSTANCE": instance,
            "SIYU_STATE_DIR": str(self._state),
            "SIYU_SESSION_TIMEOUT_MS": str(int(SESSION_S * 1000)),
            "SIYU_TRANSACTION_TIMEOUT_MS": str(int(TRANSACTION_S * 1000)),
        }

    def _disk(self, name: str) -> Path:
        """Where a worker keeps its state."""
        service, _, instance = name.rpartition("-")
        return self._state / (name if name in EXECUTORS else f"{service}/{instance}")

    def _supervised(self, name: str, *program: str, **settings: str) -> Supervised:
        env = {name: value for name, value in os.environ.items() if not name.startswith("SIYU_")}
        env |= {
            "SIYU_KAFKA_BOOTSTRAP": self._kafka.bootstrap,
            "SIYU_CLICKHOUSE_URL": self._clickhouse.url,
            "SIYU_METRICS_PORT": "0",
            "SIYU_LOG_EVENTS": "false",
            # A killed process would take the last lines of a buffered log with it.
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        command = [sys.executable, *program]
        log, executor = self._logs / f"{name}.log", name in EXECUTORS
        return Supervised(name, command, env, log, self._kafka, self._say, may_give_up=not executor)

    # -- the run -----------------------------------------------------------------------------------------------

    def play(self) -> Result:
        result = Result(self._chaos.seed, self._chaos.seconds, self._chaos.transactions)
        try:
            self._start()
            self._disturb()
            self._calm_down()
            self._check(result)
        except Broken as finding:
            result.problems.append(str(finding))
        if result.problems and self._kafka.forgot_markers():
            raise CouldNotRun(
                f"Kafka forgot how a transaction ended (see chaos_broker.py): {'; '.join(result.problems)}"
            )
        self._count(result)
        result.clean = not result.problems
        return result

    def _start(self) -> None:
        self._clickhouse.start()
        self._kafka.start()
        declared = topics.load_topics(schemas_dir() / "topics.yaml", "local")
        cluster = topics.Cluster(self._kafka.bootstrap)
        cluster.apply(cluster.difference(declared), declared)
        self._clickhouse.wait_ready()
        client = connect(self._clickhouse.url)
        migrate(client, schemas_dir() / "clickhouse")
        client.close()
        for process in self._processes():
            process.start()
        self._sender.start()
        # All take part from the first fault on: something has gone all the way through every partition.
        enough = WARM_UP_S * self._chaos.rate
        self._until(lambda: self._sender.sent.typed > enough)
        self._say("waiting until the first events have been read")
        self._wait_until_drained()
        if self._chaos.transactions:
            self._begin_acts()
        self._say("everything runs; the faults begin")
        self._chaos_began = time.monotonic()

    def _begin_acts(self) -> None:
        """The story begins, and the intents, as soon as the executors have done a first few."""
        self._until(self._platform.answers)
        self._intents = Intents(self._chaos.seed, self._platform.begin())
        self._ends = Ends(self._kafka.bootstrap)
        self._sender.ask(self._intents, self._platform.now_ms, warm_up=True)
        self._say("waiting until the executors have done something")
        self._until(self._all_ended)
        self._sender.ask(self._intents, self._platform.now_ms, warm_up=False)

    def _all_ended(self) -> bool:
        """Every action that was asked for has an outcome, and the ledger has nothing open."""
        assert self._ends is not None
        assert self._intents is not None
        self._ends.look()
        return not self._ends.open and self._intents.asked.actions.keys() <= self._ends.ended

    def _disturb(self) -> None:
        ends_at = self._chaos_began + self._chaos.seconds
        for fault in self._chaos.faults():
            self._until_time(self._chaos_began + fault.at_s)
            hit = self._strike(fault)
            self._tell(f"{fault}{'' if hit else ' (away already)'}")
            if hit:
                self._carried_out[fault.kind] += 1
            else:
                self._without_target += 1
        self._until_time(ends_at)

    def _strike(self, fault: Fault) -> bool:
        if fault.kind in ("stop_broker", "kill_broker"):
            return self._kafka.bounce(fault.seconds, hard=fault.kind == "kill_broker")
        worker = self._workers[fault.target]
        match fault.kind:
            case "kill":
                return worker.kill(fault.seconds)
            case "wipe":
                return worker.kill(fault.seconds, disk=self._disk(fault.target))
            case "restart":
                return worker.restart()
            case _:
                return worker.freeze(fault.seconds)

    def _calm_down(self) -> None:
        """No more faults: everything comes back and comes to rest."""
        for worker in self._workers.values():
            worker.thaw()
        self._say("no more faults")
        deadline = time.monotonic() + RETURN_TIMEOUT_S
        self._until(lambda: self._all_run() or time.monotonic() > deadline)
        if not self._all_run():
            away = [process.name for process in self._processes() if not process.running] or ["kafka"]
            raise Broken(f"not back within {RETURN_TIMEOUT_S:.0f} s: {', '.join(away)}")
        # The load goes on meanwhile: what a fault left open is closed by what comes after it, as in any real system.
        self._sender.ask_no_more()
        self._say("waiting until what was under way has been read")
        # The executors' backlog is as long as the limits make it: it is worked off in hurried time.
        self._wait_until_drained(executor=False)
        if self._chaos.transactions:
            self._settle()
        self._sender.finish(RETURN_TIMEOUT_S)
        self._say("waiting until everything has been read")
        self._wait_until_drained()

    def _settle(self) -> None:
        """Until the platform has no more to tell, and everything that it was asked for has come to its end."""
        self._say("waiting until no welcome is due any more")
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        self._until(lambda: self._platform.at_rest() or time.monotonic() > deadline)
        self._say("waiting until everybody's outcome is known, in hurried time")
        self._platform.hurry()
        self._until(lambda: self._all_ended() or time.monotonic() > deadline)
        if not self._all_ended():
            assert self._ends is not None
            assert self._intents is not None
            waiting = self._intents.asked.actions.keys() - self._ends.ended
            raise Broken(
                f"after {SETTLE_TIMEOUT_S:.0f} s {len(waiting)} actions have no outcome and {len(self._ends.open)} "
                f"records of the ledger are open, e.g. {sorted(waiting | self._ends.open)[:3]}"
            )

    def _check(self, result: Result) -> None:
        if self._chaos.transactions:
            self._say("judging the calls")
            assert self._intents is not None
            self._simulator.stop()
            acts = check_acts(self._kafka.bootstrap, self._intents.asked, self._platform)
            result.acts = asdict(acts)
            if not acts.clean:
                result.problems.append("the record of calls shows differences")
        self._say("auditing")
        report = audit(self._kafka.bootstrap, self._clickhouse.url)
        report.write_json(self._chaos.folder / "audit.json")
        sent = self._sender.sent.arrived()
        found = arrived(self._kafka.bootstrap, CORPS)
        if found != sent:
            raise CouldNotRun(f"Kafka does not hold what it accepted: sent {sent}, found {found}")
        result.audit = _totals(report)
        if not report.clean:
            result.problems.append("the audit found differences")
        shown = check_topics(self._kafka.bootstrap)
        result.topics = asdict(shown)
        if not shown.clean:
            result.problems.append("the topics show differences")

    def _count(self, result: Result) -> None:
        workers = self._workers.values()
        ends = sum((worker.ends for worker in workers), Counter[int]())
        result.events_sent = self._sender.sent.typed
        result.faults = dict(sorted(self._carried_out.items()))
        result.faults_without_target = self._without_target
        result.restarts = sum(worker.starts - 1 for worker in workers)
        result.ends = {str(status): count for status, count in sorted(ends.items())}
        result.fenced_exits = ends[FENCED]
        result.transaction_aborts = sum(worker.log.read_text().count('"transaction_aborted"') for worker in workers)
        result.duration_s = round(time.monotonic() - self._began, 1)

    # -- waiting -----------------------------------------------------------------------------------------------

    def _processes(self) -> list[Supervised]:
        return [*self._others, *self._workers.values()]

    def _all_run(self) -> bool:
        return self._kafka.serves() and all(process.running for process in self._processes())

    def _until_time(self, moment: float) -> None:
        self._until(lambda: time.monotonic() >= moment)

    def _until(self, done: Callable[[], bool]) -> None:
        """Looks after everything until the condition holds. Raises Broken, CouldNotRun."""
        while not done():
            self._kafka.tend()
            for process in self._processes():
                process.tend()
                if process.problem is not None:
                    raise Broken(process.problem)
            if self._sender.problem is not None:
                raise CouldNotRun(self._sender.problem)
            now = time.monotonic()
            if now >= self._status_due:
                self._status_due = now + STATUS_EVERY_S
                self._say(f"{self._sender.sent.typed:,} events sent")
            time.sleep(TICK_S)

    def _wait_until_drained(self, *, executor: bool = True) -> None:
        """Looks after everything meanwhile. Raises Broken, CouldNotRun."""
        given_up = threading.Event()
        groups = [group for group in self._chaos.groups if executor or group != "executor"]
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(
                wait_until_drained, self._kafka.bootstrap, groups, DRAIN_TIMEOUT_S, given_up, self._say
            )
            try:
                self._until(drained.done)
            finally:
                given_up.set()
            try:
                drained.result()
            except DrainTimeout as late:
                raise Broken(f"not drained: {late}") from late

    def end(self) -> None:
        """Ends every process, and at once: what is to be kept is on disk."""
        self._sender.give_up()
        for process in self._processes():
            process.end()
        if self._ends is not None:
            self._ends.close()
        self._clickhouse.kill()
        self._kafka.end()


def _totals(report: Report) -> dict[str, int]:
    return {
        name: sum(getattr(section, name) for section in report.sections)
        for name in ("expected", "lost", "double", "different")
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="chaos.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="种子 / drives the load and the faults (%(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help=f"短 / {SHORT_S:.0f} s of faults, not {LONG_S:.0f}")
    length.add_argument("--seconds", type=float, default=LONG_S, help="时长 / so many seconds of faults")
    parser.add_argument(
        "--rate", type=float, default=Chaos.rate, help="每秒事件数 / distinct events a second (%(default)s)"
    )
    parser.add_argument("--without-transactions", action="store_true", help="关闭事务 / show that the test can fail")
    parser.add_argument("--keep", action="store_true", help="保留数据 / keep data and logs of a clean run, too")
    parser.add_argument("--base-dir", type=Path, default=Path("var/chaos"), help="数据目录 / data, logs (%(default)s)")
    asked = parser.parse_args()
    seconds = SHORT_S if asked.short else asked.seconds
    if asked.rate <= 0 or seconds <= 0:
        parser.error("--rate and --seconds must be positive")
    # Either ends whatever runs; SIGINT is set too, because in the background of a script it would be ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    asked.base_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{asked.seed}-", dir=asked.base_dir)).resolve()
    chaos = Chaos(asked.seed, seconds, folder, asked.rate, not asked.without_transactions)
    try:
        result = run(chaos, say)
    except CouldNotRun as error:
        say(f"chaos: {error}; logs in {folder}")
        return 2
    except KeyboardInterrupt:
        say(f"interrupted; logs in {folder}")
        return INTERRUPTED
    if result.clean and not asked.keep:
        shutil.rmtree(folder)
    elif not result.clean:
        say(str(chaos))
        say(f"not clean: {'; '.join(result.problems)}; data and logs in {folder}")
    say(json.dumps(asdict(result)))
    return 0 if result.clean else 1


def say(text: str) -> None:
    print(text, flush=True)


def describe(chaos: Chaos) -> str:
    """Which faults this seed stands for."""
    return "\n".join(
        (f"seed {chaos.seed}, {chaos.seconds:.0f} s, {chaos.rate:.0f} events/s:", *map(str, chaos.faults()))
    )


if __name__ == "__main__":
    sys.exit(main())
