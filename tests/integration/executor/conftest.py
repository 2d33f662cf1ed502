import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.events import schemas_dir
from siyu.ops.topics import Cluster, load_topics

# Modules of this folder and of the contract tests' fake, which are no packages.
sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2] / "contract" / "executor"))

from executor_process import Topics, Worker
from fake_wecom import FakeWecom

CORP = '{{corp_id: {0}, agent_id: "1", secret: s, callback_token: t, callback_aes_key: "{1}"}}'
CORPS = f"corps: [{CORP.format('ww1', 'k' * 43)}, {CORP.format('ww2', 'k' * 43)}]"


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of this module's own: the services' topics have fixed names, and one test takes the broker away."""
    (port,) = free_ports(1)
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"), port)
    broker.start()
    try:
        broker.wait_ready()
        cluster = Cluster(broker.bootstrap)
        topics = load_topics(schemas_dir() / "topics.yaml", "local")
        cluster.apply(cluster.difference(topics), topics)
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def topics(own_kafka: LocalKafka) -> Topics:
    return Topics(own_kafka.bootstrap)


@pytest.fixture
async def wecom() -> AsyncIterator[FakeWecom]:
    server = FakeWecom()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def worker(own_kafka: LocalKafka, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """`worker("services.executor", base_url)`: a process of its own, not yet started."""
    made: list[Worker] = []
    (tmp_path / "corps.yaml").write_text(CORPS)

    def make(module: str, wecom_base_url: str = "", **settings: str) -> Worker:
        environment = {
            "SIYU_KAFKA_BOOTSTRAP": own_kafka.bootstrap,
            "SIYU_WECOM_BASE_URL": wecom_base_url,
            "SIYU_CORPS": str(tmp_path / "corps.yaml"),
            "SIYU_STATE_DIR": str(tmp_path / "state"),
            "SIYU_METRICS_PORT": "0",
        }
        made.append(Worker(module, tmp_path / f"{module}.log", environment | settings))
        return made[-1]

    yield make
    for process in made:
        process.kill()
