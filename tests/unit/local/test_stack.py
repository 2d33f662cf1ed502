"""The stack's declaration: every process gets the addresses of the others, and nothing shares a port."""

from pathlib import Path

import pytest

from deploy.local.stack import SERVICES, StackConfig, processes, runner
from services.executor.settings import Settings as ExecutorSettings


@pytest.fixture
def config(tmp_path: Path) -> StackConfig:
    return StackConfig.free_ports(tmp_path, corps=tmp_path / "corps.yaml", clock_file=tmp_path / "clock")


def test_default_ports_are_the_documented_ones() -> None:
    used = {port.number for process in processes(StackConfig()) for port in process.ports}
    assert used == {9092, 8123, 8070, 8080, 9100, 9102, 9103, 9104, 9105, 9106, 9107, 9108, 8090, 9109, 9110}


def test_free_ports_are_all_different(config: StackConfig) -> None:
    ports = [port.number for process in processes(config) for port in process.ports]
    assert len(ports) == len(set(ports)) == 15


def test_every_service_knows_where_the_others_are(config: StackConfig) -> None:
    declared = {process.name: process for process in processes(config)}
    for name in (*SERVICES, "simulator"):
        env = declared[name].env
        assert env["SIYU_KAFKA_BOOTSTRAP"] == f"127.0.0.1:{config.kafka_port}"
        assert env["SIYU_CLICKHOUSE_URL"] == f"http://127.0.0.1:{config.clickhouse_port}"
        assert env["SIYU_WECOM_BASE_URL"] == f"http://127.0.0.1:{config.simulator_port}/cgi-bin"
        assert env["SIYU_CORPS"] == str(config.corps)
        assert env["SIYU_CLOCK_FILE"] == str(config.clock_file)
        assert declared[name].ready == f"http://127.0.0.1:{env['SIYU_METRICS_PORT']}/readyz"
    assert declared["ingest"].env["SIYU_PORT"] == str(config.ingest_port)
    assert declared["api"].env["SIYU_API_PORT"] == str(config.api_port)
    assert declared["simulator"].env["SIYU_PORT"] == str(config.simulator_port)
    assert declared["simulator"].env["SIYU_SIM_CALLBACK_BASE"] == f"http://127.0.0.1:{config.ingest_port}"


def test_a_service_finds_the_limits_of_its_version_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIYU_LIMITS", raising=False)
    assert list(ExecutorSettings().limits.glob("*.yaml"))


def test_services_wait_for_topics_and_tables(config: StackConfig) -> None:
    declared = {process.name: process for process in processes(config)}
    assert all(set(declared[name].depends_on) == {"topics", "migrate"} for name in SERVICES)
    assert declared["topics"].one_shot
    assert declared["topics"].depends_on == ("kafka",)
    assert declared["migrate"].depends_on == ("clickhouse",)


def test_settings_of_one_process_reach_only_that_one(tmp_path: Path) -> None:
    config = StackConfig(base_dir=tmp_path, extra_env={"simulator": {"SIYU_SIM_SEED": "7"}})
    declared = {process.name: process for process in processes(config)}
    assert declared["simulator"].env["SIYU_SIM_SEED"] == "7"
    assert "SIYU_SIM_SEED" not in declared["ingest"].env


def test_a_part_of_the_stack_brings_what_it_depends_on(config: StackConfig) -> None:
    part = runner(config, only=("sink",))
    assert sorted(part._running) == ["clickhouse", "kafka", "migrate", "sink", "topics"]
