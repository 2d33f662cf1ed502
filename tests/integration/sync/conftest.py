import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

# Modules of this folder and of the sink's, which are no packages.
sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "sink"))

from executor import Answer, Executor
from service_process import ServiceProcess

from deploy.local.kafka import LocalKafka
from siyu.events import schemas_dir
from siyu.ops.topics import Cluster, load_topics


@pytest.fixture
def topics(kafka: LocalKafka) -> None:
    """Every topic as declared: the service has no other names for them."""
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)


@pytest.fixture
def corp_id(unique_name: Callable[[str], str]) -> str:
    return unique_name("ww")


@pytest.fixture
def start_executor(
    kafka: LocalKafka, topics: None, unique_name: Callable[[str], str]
) -> Iterator[Callable[[dict[str, Answer]], Executor]]:
    started: list[Executor] = []

    def start(corps: dict[str, Answer]) -> Executor:
        started.append(Executor(kafka.bootstrap, unique_name("executor"), corps))
        return started[-1]

    yield start
    for executor in started:
        executor.close()


@pytest.fixture
def start_sync(kafka: LocalKafka, tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """`start_sync([corp ids], SIYU_…=…)`; all bear one name, as a restarted instance does, and are ended afterwards."""
    started: list[ServiceProcess] = []

    def start(corps: list[str], **settings: str) -> ServiceProcess:
        number = len(started)
        path = tmp_path / f"corps-{number}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "corps": [
                        {
                            "corp_id": corp_id,
                            "agent_id": "1000002",
                            "secret": "not-used-here",
                            "callback_token": "token",
                            "callback_aes_key": "a" * 43,
                        }
                        for corp_id in corps
                    ]
                }
            )
        )
        environment = {
            "SIYU_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "SIYU_CORPS": str(path),
            "SIYU_STATE_DIR": str(tmp_path / "state"),
            "SIYU_SYNC_POLL_INTERVAL_SECONDS": "0.2",
            "SIYU_SYNC_ASK_AGAIN_SECONDS": "2",
            "SIYU_SYNC_FIRST_BACKOFF_SECONDS": "0.2",
            **settings,
        }
        process = ServiceProcess("sync", environment, tmp_path / f"sync-{number}.log")
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()
