"""One Kafka node that keeps its data: after `stop()` or kill -9, `start()` finds every acknowledged record again.

The data folder belongs to one running broker. The Java process dies with the Python process that started it.
"""

import fcntl
import shutil
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import IO

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.local import launch
from deploy.local.child import ChildServer
from deploy.local.errors import DataFolderInUse, StartFailed
from deploy.local.kafka.jars import DEFAULT_CACHE, class_archive, require_java, resolve_jars
from deploy.local.ports import answers, check_free, free_ports

__all__ = ["LocalKafka", "train"]

LOG4J = Path(__file__).with_name("log4j2.xml")
# A broker that lives for minutes gets little back for the optimising compiler: in the demo it took 50 CPU seconds and
# 283 MB without it, 57 and 374 with it, at the same latencies. The page cache holds the log.
QUICK_JVM = ("-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1")
# What a broker in production runs with: the optimising compiler and the heap of Kafka's own start script. A benchmark
# that pushes millions of records through the quick one would measure the broker.
FULL_JVM = ("-Xms1g", "-Xmx1g")

# Kafka's defaults suit a cluster; these suit one node that should start in seconds and be thrown away.
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "num.partitions": "4",
    # A topic nobody declared is a mistake; `siyu topics apply` and faust create theirs by request.
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "message.max.bytes": str(8 * 1024 * 1024),
    "replica.fetch.max.bytes": str(8 * 1024 * 1024),
    # Waiting for more members of a group before the first assignment only slows one machine down.
    "group.initial.rebalance.delay.ms": "0",
    # Tests of a member's death ask for sessions shorter than the 6 s a cluster allows.
    "group.min.session.timeout.ms": "1000",
    # How long past its timeout an abandoned transaction may go on holding readers back (default 10 s).
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # After kill -9 the new process is let in only when its predecessor's session has run out (default 9 s).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    # The cleaner's default of 128 MiB would be a quarter of the heap; 32 MiB still holds 1.2 M keys a pass.
    "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),
    "log.segment.bytes": str(256 * 1024 * 1024),
    "log.index.size.max.bytes": str(2 * 1024 * 1024),
}


class LocalKafka(ChildServer):
    """A broker in `data_dir` listening on `host:port`; the controller's port is any free one unless given.

    `full_compiler` is for long and heavy use, such as benchmarks; without it the broker starts and ends cheaply.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 9092,
        controller_port: int | None = None,
        host: str = "127.0.0.1",
        *,
        cache_dir: Path = DEFAULT_CACHE,
        full_compiler: bool = False,
        train_into: Path | None = None,
    ) -> None:
        super().__init__(data_dir, port, host)
        self._controller_port = controller_port
        self._cache_dir = cache_dir
        self._jvm = FULL_JVM if full_compiler else QUICK_JVM
        self._train_into = train_into

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "kafka.log"

    def start(self) -> None:
        """Start the broker; `wait_ready` then waits for it. Starting a running one is refused.

        Raises PortTaken, MissingPrerequisite, DataFolderInUse or StartFailed.
        """
        if self._process is not None and self._process.poll() is None:
            raise StartFailed(f"the broker on {self.bootstrap} already runs (pid {self._process.pid})")
        check_free("Kafka", self.host, self.port, "SIYU_KAFKA_BOOTSTRAP / --port")
        java, jars = require_java(), resolve_jars(self._cache_dir)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        properties = self._write_properties()
        archive = class_archive(jars, java)
        # Half of a start is loading classes: 4.2 CPU seconds without the archive, 2.1 with it.
        sharing = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        training = [f"-XX:ArchiveClassesAtExit={self._train_into}"] if self._train_into else []
        logging = [f"-Dlog4j2.configurationFile={LOG4J}", f"-Dsiyu.kafka.log={self.log_file}"]
        # A killed JVM leaves the native libraries it unpacked: here the next start, or the folder's end, removes them.
        temporary = self.data_dir / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        base = [java.path, *self._jvm, *sharing, *logging, f"-Djava.io.tmpdir={temporary}"]
        with lock, (self.data_dir / "kafka.out").open("ab") as output:
            if not (self.data_dir / "log" / "meta.properties").exists():
                self._format_storage(base, jars, properties, output.fileno())
            self._process = subprocess.Popen(
                launch.command(*base, *training, "-cp", f"{jars}/*", "kafka.Kafka", str(properties)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # The Java process inherits the lock and holds it for as long as it lives, however it ends.
                pass_fds=(lock.fileno(),),
                # Ctrl-C in a terminal reaches the Python process, which then stops the broker in order.
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the broker serves metadata. Raises StartFailed when it ended or took longer."""
        if self._process is None:
            raise StartFailed("the broker was not started")
        deadline = time.monotonic() + timeout_s
        # Asking librdkafka only once the port answers keeps its connection errors out of the output.
        while not answers(self.host, self.port):
            self._check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"Kafka on {self.bootstrap} not ready within {timeout_s:.0f} s: {self._reason()}")
            time.sleep(0.05)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "socket.timeout.ms": 5000})
        while True:
            self._check_alive()
            try:
                if admin.list_topics(timeout=2).brokers:
                    return
            except KafkaException:
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"Kafka on {self.bootstrap} not ready within {timeout_s:.0f} s: {self._reason()}"
                    ) from None

    def _lock(self) -> IO[bytes]:
        """Kafka refuses a second broker on its folder too, but only after it has written into the first one's log."""
        lock = (self.data_dir / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            lock.close()
            raise DataFolderInUse("Kafka", self.data_dir) from held
        return lock

    def _write_properties(self) -> Path:
        # Ports may differ from one start to the next: with a static voter list they are configuration, not data.
        controller = f"{self.host}:{self._controller_port or free_ports(1, self.host)[0]}"
        addresses = {
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data_dir / "log"),
        }
        path = self.data_dir / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in {**PROPERTIES, **addresses}.items()))
        return path

    def _format_storage(self, base: list[str], jars: Path, properties: Path, output: int) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=": one id in 64 begins with a dash, and would be taken for an option.
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config", str(properties)]
        command = [*base, "-cp", f"{jars}/*", *tool]
        done = subprocess.run(launch.command(*command), stdout=output, stderr=output, check=False)
        if done.returncode != 0:
            raise StartFailed(f"Kafka could not format {self.data_dir}: {self._reason()}")

    def _check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            ended = f"Kafka ended with status {self._process.returncode} before it was ready"
            raise StartFailed(f"{ended}: {self._reason()}")

    def _reason(self) -> str:
        """The last line of the broker's log or output that tells of an error."""
        for path in (self.log_file, self.data_dir / "kafka.out"):
            lines = path.read_text(errors="replace").splitlines()[-200:] if path.exists() else []
            for line in reversed(lines):
                if any(word in line for word in (" ERROR ", " FATAL ", "Exception", "Error")) and "\tat " not in line:
                    return f"{line.strip()} (see {path})"
        return f"see {self.log_file}"


def train(cache_dir: Path = DEFAULT_CACHE) -> None:
    """Run a broker once for the archive of its classes, unless it is there: every later start takes half the time."""
    archive = class_archive(resolve_jars(cache_dir), require_java())
    if archive.exists():
        return
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="training-") as folder:
        made = Path(folder) / "classes.jsa"
        (port,) = free_ports(1)
        with LocalKafka(Path(folder) / "data", port, cache_dir=cache_dir, train_into=made):
            pass
        if made.exists():
            made.rename(archive)
