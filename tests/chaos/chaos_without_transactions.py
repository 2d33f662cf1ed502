"""A service as it would be without transactions: the proof that the chaos run can fail.

It works as most consumers do: it produces at once, and its offsets are committed every three seconds. Nothing else is
changed, so that what the audit then reports is what the transactions are for.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from confluent_kafka import Producer, TopicPartition

from siyu.ops import processor
from siyu.stream import Runtime, clients


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


def main(service: str) -> None:
    with_transactions = clients.consumer
    automatic = {"enable.auto.commit": True, "auto.commit.interval.ms": 3_000}
    clients.consumer = lambda *of: {**with_transactions(*of), **automatic}
    processor.Runtime = WithoutTransactions  # type: ignore[attr-defined,misc]
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
