"""Composition root of the API: HTTP on one port, health and metrics on another, ClickHouse and Kafka behind both.

The process lives whether the stores do or not: without them /livez stays well, /readyz and what needs them say 503,
and both are well again by themselves. Controls, quotas and configuration are followed, not asked for, so a reader
costs Kafka nothing; what is older than ``SIYU_API_STALE_SECONDS`` is not shown as if it were of now.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from typing import Generic, TypeVar

import uvicorn
from prometheus_client import CollectorRegistry

from services.api.http import Api
from services.api.metrics import ApiMetrics
from services.api.routes import World
from services.api.settings import Settings
from siyu.actions.control import TOPIC as CONTROL
from siyu.actions.errors import ActionsError, Unavailable
from siyu.actions.operations import Operations
from siyu.actions.quota import TOPIC as QUOTA
from siyu.actions.records import Records
from siyu.actions.store import ActionStore
from siyu.events import ConfigRecord, ControlRecord, Event, QuotaState, codec, schemas_dir
from siyu.limits import LimitSource, load_registry
from siyu.ops.api_tokens import TokenFile
from siyu.ops.clock import clock_from
from siyu.ops.health import OpsServer
from siyu.ops.logging import get_logger
from siyu.ops.tables import TopicTables
from siyu.ops.web import GuestServer

CONFIG = "config"
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 256
_LOOP_SILENT_SECONDS = 10.0
_HEARTBEAT_SECONDS = 1.0
_GRACE_SECONDS = 20

E = TypeVar("E", bound=Event)


class CannotStart(Exception):
    """A setting is wrong; the message says which."""


class Newest(Generic[E]):
    """The newest record of each key of a compacted topic. Written by the loop, read by any thread."""

    def __init__(self, of: type[E]) -> None:
        self._of = of
        self._records: dict[bytes, E] = {}
        self._lock = threading.Lock()

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Takes one record. Raises CodecError."""
        record = None if value is None else codec().decode_as(self._of, value)
        with self._lock:
            # Oldest word first, also when a key comes again.
            self._records.pop(key, None)
            if record is not None:
                self._records[key] = record

    def put(self, key: str, record: E) -> None:
        """What we have just written ourselves: it comes back in a moment, and the next request must see it."""
        with self._lock:
            self._records[key.encode()] = record

    def all(self) -> list[E]:
        """All of them, oldest first."""
        with self._lock:
            return list(self._records.values())


class ApiService:
    """One API process. ``port`` and ``metrics_port`` are the ones really bound."""

    def __init__(self, settings: Settings) -> None:
        """Reads tokens and limits and takes both ports. Raises CannotStart, TokensError, LimitsError or ClockError."""
        self._settings = settings
        self._log = get_logger()
        registry = CollectorRegistry()
        metrics = ApiMetrics(registry)
        tokens = TokenFile(
            settings.api_tokens, lambda problem: self._log.error("tokens_not_taken_over", error_detail=problem)
        )
        metrics.tokens.set(len(tokens))
        if not len(tokens):
            self._log.warning("no_tokens", error_detail="nobody may ask anything: SIYU_API_TOKENS, siyu api-token")
        self._controls, self._quotas = Newest(ControlRecord), Newest(QuotaState)
        self._limits = LimitSource(
            load_registry(schemas_dir() / "limits"),
            lambda why: self._log.error("limits_not_taken_over", error_detail=why),
        )
        self._tables = TopicTables(
            settings.kafka_bootstrap,
            f"siyu-api-{settings.instance}",
            refused=lambda topic: metrics.refused_records.labels(topic).inc(),
        )
        self._tables.follow(CONTROL, self._controls.apply)
        self._tables.follow(QUOTA, self._quotas.apply)
        self._tables.follow(CONFIG, self._take_config)
        self._store = ActionStore(
            settings.clickhouse_url,
            user=settings.clickhouse_user,
            password=settings.clickhouse_password,
            database=settings.clickhouse_database,
            timeout_s=settings.api_query_seconds,
        )
        operations = Operations(
            store=self._store,
            records=Records(settings.kafka_bootstrap),
            clock=clock_from(settings.clock_file),
            controls=lambda: self._fresh(CONTROL, self._controls),
            quotas=lambda: self._fresh(QUOTA, self._quotas),
            look_back_ms=settings.api_look_back_hours * 3_600_000,
            written=lambda record: self._controls.put(record.id, record),
        )
        api = Api(
            World(operations, lambda: self._limits.registry),
            tokens,
            metrics,
            max_in_flight=settings.api_max_in_flight,
        )
        self._socket = _listen(settings.api_host, settings.api_port)
        self.port: int = self._socket.getsockname()[1]
        self._turned_at = time.monotonic()
        try:
            self._ops = OpsServer(
                settings.metrics_host, settings.metrics_port, registry=registry, live=self._silent, ready=self._unready
            )
        except OSError as error:
            self._socket.close()
            raise CannotStart(
                f"metrics port {settings.metrics_port}: {error.strerror}; set SIYU_METRICS_PORT"
            ) from None
        self.metrics_port: int = self._ops.port
        self._server = GuestServer(
            uvicorn.Config(
                api.app,
                # httptools collects a request's head without a limit.
                http="h11",
                h11_max_incomplete_event_size=64 << 10,
                ws="none",
                lifespan="off",
                interface="asgi3",
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, then finishes what is in flight. Raises what ended it, if anything else did."""
        # TopicTables reports each loss and return once; aiokafka reports every attempt.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        ending = asyncio.Event()
        tables = asyncio.create_task(self._tables.run(ending))
        http = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        heart = asyncio.create_task(self._beat())
        stopped = asyncio.create_task(stop.wait())
        self._log.info("started", port=self.port, settings=self._settings.redacted())
        try:
            await asyncio.wait({tables, http, heart, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._log.info("stopping")
            self._server.should_exit = True
            stopped.cancel()
            await asyncio.wait({http})
            ending.set()
            heart.cancel()
            ended = await asyncio.gather(tables, http, heart, return_exceptions=True)
            self._store.close()
            self._socket.close()
            self._ops.close()
            self._log.info("stopped")
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error

    def _take_config(self, key: bytes, value: bytes | None) -> None:
        self._limits.offer(None if value is None else codec().decode_as(ConfigRecord, value))

    def _fresh(self, topic: str, newest: Newest[E]) -> list[E]:
        if not self._tables.fresh(topic, int(self._settings.api_stale_seconds * 1000)):
            raise Unavailable("kafka_unavailable", f"{topic} is not up to date: Kafka does not answer")
        return newest.all()

    async def _beat(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    def _silent(self) -> str | None:
        silent = time.monotonic() - self._turned_at
        return None if silent < _LOOP_SILENT_SECONDS else f"loop silent for {silent:.0f} s"

    def _unready(self) -> str | None:
        problem = self._tables.problem()
        if problem is not None:
            return f"kafka: {problem}"
        if not self._tables.ready():
            return "kafka: reading the topics"
        try:
            self._store.check()
        except ActionsError as error:
            return f"clickhouse: {error}"
        return None


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise CannotStart(f"port {port} on {host}: {error.strerror}; set SIYU_API_PORT or SIYU_API_HOST") from None
