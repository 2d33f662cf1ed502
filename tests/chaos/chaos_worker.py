"""One worker of the chaos run: the services' own processors, with sessions short enough for a test.

With ``--without-transactions`` it works as most consumers do: it produces at once, and its offsets are committed every
three seconds. Nothing else is changed, so that what the audit then reports is what the transactions are for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos_plan import SESSION_S, TRANSACTION_S
from confluent_kafka import Producer, TopicPartition
from prometheus_client import CollectorRegistry

from services.journey import service as journey
from services.journey.metrics import JourneyMetrics
from services.performance import service as performance
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import stop_event
from siyu.stream import Processor, Runtime, StreamError, StreamSettings, clients

PROCESSORS: dict[str, Callable[[CollectorRegistry], Processor[Any]]] = {
    journey.NAME: lambda registry: journey.processor(JourneyMetrics(registry), log_events=False),
    performance.NAME: lambda _: performance.processor(log_events=False),
}


class PlainProducer(Producer):
    """Says yes to every call of a transaction and does none of it; offsets are left to the consumer's own commits."""

    def __init__(self, config: dict[str, Any], runtime: WithoutTransactions, **more: Any) -> None:
        super().__init__(config, **more)
        self._runtime = runtime

    def init_transactions(self, *_: object) -> None: ...

    def begin_transaction(self) -> None: ...

    def commit_transaction(self, *_: object) -> None: ...

    def abort_transaction(self, *_: object) -> None: ...

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], *_: object) -> None:
        self._runtime.store_offsets(offsets)


class WithoutTransactions(Runtime[Any]):
    """The runtime with the one thing taken away that this test is about; its consumer commits by itself."""

    def _open_producer(self) -> None:
        config = clients.producer(self.processor, self.settings)
        for name in ("transactional.id", "transaction.timeout.ms"):
            del config[name]
        self._producer = PlainProducer({**config, "enable.idempotence": True}, self, logger=self._client_logger)

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self._consumer.store_offsets(offsets=offsets)


def commit_automatically() -> None:
    """Has every consumer of this process commit what was stored, every so often."""
    settings = clients.consumer
    automatic = {"enable.auto.commit": True, "auto.commit.interval.ms": 3_000}
    clients.consumer = lambda *of: {**settings(*of), **automatic}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processor", choices=PROCESSORS)
    parser.add_argument("instance")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--without-transactions", action="store_true")
    asked = parser.parse_args()

    stop = stop_event()
    configure_logging(asked.processor)
    registry = CollectorRegistry()
    settings = StreamSettings(
        asked.bootstrap,
        asked.state_dir,
        asked.instance,
        session_timeout_ms=int(SESSION_S * 1000),
        transaction_timeout_ms=int(TRANSACTION_S * 1000),
    )
    processor = PROCESSORS[asked.processor](registry)
    runtime: Runtime[Any]
    if asked.without_transactions:
        commit_automatically()
        runtime = WithoutTransactions(processor, settings, registry=registry)
    else:
        runtime = Runtime(processor, settings, registry=registry)
    try:
        runtime.run(stop)
    except StreamError as error:
        get_logger().error("service_failed", error=type(error).__name__, error_detail=str(error))
        return error.exit_code
    except Exception as error:  # the rim of the process, as in siyu.ops.processor
        get_logger().error("service_crashed", exc_info=error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
