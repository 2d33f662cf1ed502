"""docker-compose.yml is valid and starts what deploy/local starts: the same processes, addresses and broker."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.kafka.broker import PROPERTIES
from deploy.local.kafka.jars import kafka_version
from deploy.local.stack import SERVICES, StackConfig, processes
from siyu.ops.corps import load_corps

ROOT = Path(__file__).parents[3]
OURS = (*SERVICES, "simulator")
# Broker settings that only make one plain process start faster.
ONLY_LOCAL = {
    "broker.session.timeout.ms",
    "broker.heartbeat.interval.ms",
    "num.network.threads",
    "num.io.threads",
    "background.threads",
    "log.cleaner.dedupe.buffer.size",
    "log.segment.bytes",
    "log.index.size.max.bytes",
    "offsets.topic.num.partitions",
    "transaction.state.log.num.partitions",
    "share.coordinator.state.topic.num.partitions",
    "group.min.session.timeout.ms",
    "listener.security.protocol.map",
}


def compose_command() -> list[str]:
    """The plugin or the stand-alone program: whichever is there checks the file."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.fail("neither `docker compose` nor `docker-compose` is installed (Debian: apt-get install docker-compose)")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as compose itself understands it, every reference and variable resolved."""
    checked = subprocess.run([*compose_command(), "config"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    resolved: dict[str, Any] = yaml.safe_load(checked.stdout)
    return resolved


def test_it_starts_the_same_processes(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"kafka", "clickhouse", "setup", *OURS}


def test_everything_that_stays_up_has_a_health_check(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert all(services[name]["healthcheck"]["test"] for name in services if name != "setup")


def test_services_wait_for_setup_and_setup_for_the_stores(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in SERVICES:
        assert services[name]["depends_on"]["setup"]["condition"] == "service_completed_successfully"
    assert {name: needed["condition"] for name, needed in services["setup"]["depends_on"].items()} == {
        "kafka": "service_healthy",
        "clickhouse": "service_healthy",
    }


def test_one_image_runs_every_process_of_ours(compose: dict[str, Any]) -> None:
    images = {compose["services"][name]["image"] for name in (*OURS, "setup")}
    assert images == {"siyu:local"}
    assert all("build" in compose["services"][name] for name in (*OURS, "setup"))


def test_ports_are_the_documented_ones_and_open_on_this_machine_only() -> None:
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    published = [port.split(":") for service in declared.values() for port in service.get("ports", ())]
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    assert all(outside == inside for _, outside, inside in published)
    local = {port.number for process in processes(StackConfig()) for port in process.ports}
    assert {int(outside) for _, outside, _ in published} == local


def test_every_process_gets_the_settings_it_gets_locally(compose: dict[str, Any]) -> None:
    local = {process.name: process.env for process in processes(StackConfig())}
    for name in OURS:
        inside = compose["services"][name]["environment"]
        left_out = {"PYTHONUNBUFFERED", "SIYU_INSTANCE", "SIYU_LOG_EVENTS"}  # the image sets it; defaults
        assert set(local[name]) - left_out <= set(inside)
        assert inside["SIYU_METRICS_PORT"] == local[name]["SIYU_METRICS_PORT"]


def test_the_broker_is_the_same(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]
    assert kafka["image"] == f"apache/kafka:{kafka_version()}"
    for name in PROPERTIES.keys() - ONLY_LOCAL:
        assert str(kafka["environment"]["KAFKA_" + name.upper().replace(".", "_")]) == PROPERTIES[name], name


def test_the_default_corps_file_can_be_read() -> None:
    assert load_corps(ROOT / "deploy/docker/corps.yaml")


def test_the_image_holds_what_the_project_needs_and_runs_as_nobody_special() -> None:
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    assert "uv sync --frozen --no-dev" in dockerfile
    assert "\nUSER siyu\n" in dockerfile
    packages = ("siyu", "services", "simulator", "schemas", "deploy")
    assert all(f"COPY {package} {package}\n" in dockerfile for package in packages)
    ignored = (ROOT / "deploy/docker/Dockerfile.dockerignore").read_text().splitlines()
    assert all(f"!{package}" in ignored for package in (*packages, "pyproject.toml", "uv.lock", "README.md", "LICENSE"))
