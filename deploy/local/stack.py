"""Siyu's processes on one machine: what runs, on which ports, with which settings, after what.

`python -m deploy.local.stack` keeps everything running in the foreground until Ctrl-C.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.local.errors import LocalStackError
from deploy.local.ports import free_ports
from deploy.local.runner import Event, Port, Process, Runner, print_event

__all__ = ["SERVICES", "StackConfig", "processes", "runner"]

# In the order of the flow. Where they listen by default: docs of the design, section "Addresses on one machine".
SERVICES = ("ingest", "journey", "performance", "planner", "guard", "executor", "sync", "sink", "api")
_METRICS_PORTS = {
    "ingest": 9100, "journey": 9102, "performance": 9103, "planner": 9104, "executor": 9105, "sync": 9106,
    "sink": 9107, "api": 9108, "simulator": 9109, "guard": 9110,
}  # fmt: skip
_STEPS = ("topics", "migrate")
HOST = "127.0.0.1"


@dataclass(frozen=True)
class StackConfig:
    """Where everything is kept and listens. Data, logs and state live under `base_dir`."""

    base_dir: Path = Path("var")
    corps: Path = Path("corps.yaml")
    kafka_port: int = 9092
    clickhouse_port: int = 8123
    simulator_port: int = 8070
    ingest_port: int = 8080
    api_port: int = 8090
    metrics_ports: Mapping[str, int] = field(default_factory=lambda: dict(_METRICS_PORTS))
    clock_file: Path | None = None
    log_events: bool = True
    instance: str = "0"
    extra_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More settings for single processes, by name; `simulator` gets its SIYU_SIM_* here."""

    @classmethod
    def free_ports(cls, base_dir: Path, **others: object) -> "StackConfig":
        """Ports that are free now, for tests."""
        kafka, clickhouse, simulator, ingest, api, *metrics = free_ports(5 + len(_METRICS_PORTS), HOST)
        ports = cls(
            base_dir=base_dir,
            kafka_port=kafka,
            clickhouse_port=clickhouse,
            simulator_port=simulator,
            ingest_port=ingest,
            api_port=api,
            metrics_ports=dict(zip(_METRICS_PORTS, metrics, strict=True)),
        )
        return replace(ports, **others)  # type: ignore[arg-type]

    @property
    def kafka_bootstrap(self) -> str:
        return f"{HOST}:{self.kafka_port}"

    @property
    def clickhouse_url(self) -> str:
        return f"http://{HOST}:{self.clickhouse_port}"

    @property
    def simulator_url(self) -> str:
        return f"http://{HOST}:{self.simulator_port}"

    @property
    def ingest_url(self) -> str:
        return f"http://{HOST}:{self.ingest_port}"

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.api_port}"

    @property
    def log_dir(self) -> Path:
        return self.base_dir / "log"

    @property
    def state_dir(self) -> Path:
        return self.base_dir / "state"

    def metrics_url(self, name: str) -> str:
        """Of a service or the simulator: /livez, /readyz and /metrics are below it."""
        return f"http://{HOST}:{self.metrics_ports[name]}"

    def env(self, name: str) -> dict[str, str]:
        """The settings of one process, as it reads them."""
        env = {
            "SIYU_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "SIYU_CLICKHOUSE_URL": self.clickhouse_url,
            "SIYU_WECOM_BASE_URL": f"{self.simulator_url}/cgi-bin",
            "SIYU_CORPS": str(self.corps),
            "SIYU_STATE_DIR": str(self.state_dir),
            "SIYU_INSTANCE": self.instance,
            "SIYU_LOG_EVENTS": str(self.log_events).lower(),
            # A killed process would take the last lines of a buffered log with it.
            "PYTHONUNBUFFERED": "1",
        }
        if name in self.metrics_ports:
            env["SIYU_METRICS_PORT"] = str(self.metrics_ports[name])
        if self.clock_file is not None:
            env["SIYU_CLOCK_FILE"] = str(self.clock_file)
        if name == "ingest":
            env["SIYU_PORT"] = str(self.ingest_port)
        if name == "api":
            env["SIYU_API_PORT"] = str(self.api_port)
        if name == "simulator":
            env["SIYU_PORT"] = str(self.simulator_port)
            env["SIYU_SIM_CALLBACK_BASE"] = self.ingest_url
        return {**env, **self.extra_env.get(name, {})}


def processes(config: StackConfig) -> list[Process]:
    """Stores first, then topics and tables, then the services and the simulator."""
    python = sys.executable
    siyu = str(Path(python).with_name("siyu"))  # the command, installed beside the interpreter
    kafka = Process(
        "kafka",
        (
            python, "-m", "deploy.local.kafka",
            "--data-dir", str(config.base_dir / "kafka"), "--port", str(config.kafka_port),
        ),
        env=config.env("kafka"),
        ready=f"kafka://{config.kafka_bootstrap}",
        ports=(Port(config.kafka_port, "SIYU_KAFKA_BOOTSTRAP"),),
        ready_timeout_s=120,
    )  # fmt: skip
    clickhouse = Process(
        "clickhouse",
        (
            python, "-m", "deploy.local.clickhouse",
            "--data-dir", str(config.base_dir / "clickhouse"), "--port", str(config.clickhouse_port),
        ),
        env=config.env("clickhouse"),
        ready=f"{config.clickhouse_url}/ping",
        ports=(Port(config.clickhouse_port, "SIYU_CLICKHOUSE_URL"),),
    )  # fmt: skip
    topics = Process(
        "topics",
        (siyu, "topics", "apply", "--yes"),
        env=config.env("topics"),
        depends_on=("kafka",),
        one_shot=True,
    )
    migrate = Process(
        "migrate",
        (siyu, "migrate"),
        env=config.env("migrate"),
        depends_on=("clickhouse",),
        one_shot=True,
    )
    services = [
        Process(
            name,
            (python, "-m", f"services.{name}"),
            env=config.env(name),
            ready=f"{config.metrics_url(name)}/readyz",
            depends_on=_STEPS,
            ports=(
                Port(config.metrics_ports[name], f"SIYU_METRICS_PORT of {name}"),
                *((Port(config.ingest_port, "SIYU_PORT of ingest"),) if name == "ingest" else ()),
                *((Port(config.api_port, "SIYU_API_PORT"),) if name == "api" else ()),
            ),
        )
        for name in SERVICES
    ]
    simulator = Process(
        "simulator",
        (python, "-m", "simulator"),
        env=config.env("simulator"),
        ready=f"{config.metrics_url('simulator')}/readyz",
        # Its scenario begins when it is told to; a service that calls it waits for it like for the real platform.
        ports=(
            Port(config.simulator_port, "SIYU_WECOM_BASE_URL / SIYU_PORT of simulator"),
            Port(config.metrics_ports["simulator"], "SIYU_METRICS_PORT of simulator"),
        ),
    )
    return [kafka, clickhouse, topics, migrate, simulator, *services]


def runner(
    config: StackConfig,
    *,
    only: Sequence[str] | None = None,
    on_event: Callable[[Event], None] = print_event,
) -> Runner:
    """A runner of the whole system, or of the named processes and what they depend on."""
    declared = {process.name: process for process in processes(config)}
    wanted = set(declared if only is None else only)
    while needed := {name for one in wanted for name in declared[one].depends_on} - wanted:
        wanted |= needed
    return Runner([process for name, process in declared.items() if name in wanted], config.log_dir, on_event=on_event)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.stack", description=__doc__)
    parser.add_argument("--base-dir", type=Path, default=StackConfig.base_dir, help="data, state, logs (%(default)s)")
    parser.add_argument("--corps", type=Path, default=StackConfig.corps, help="the corps file (%(default)s)")
    asked = parser.parse_args()
    try:
        asyncio.run(runner(StackConfig(base_dir=asked.base_dir, corps=asked.corps)).run())
    except LocalStackError as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
