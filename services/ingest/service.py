"""Composition root of ingest: the callback URL on one port, health and metrics on another, Kafka behind both.

The process lives whether Kafka does or not: without it /livez stays well, /readyz and callbacks say 503, and both are
well again by themselves when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import uvicorn
from prometheus_client import CollectorRegistry

from services.ingest.domain import Endpoint
from services.ingest.http import BoundedHeadProtocol, CallbackApp
from services.ingest.kafka import EventLog
from services.ingest.metrics import IngestMetrics
from services.ingest.settings import Settings
from siyu.ops.corps import load_corps
from siyu.ops.health import OpsServer
from siyu.ops.logging import get_logger
from siyu.ops.web import GuestServer
from siyu.wecom.crypto import CallbackCrypto

# Longer than the idle time of the usual load balancers (60 s), so that we never hang up on a request under way.
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_LOOP_SILENT_SECONDS = 10.0
_HEARTBEAT_SECONDS = 1.0


class CannotStart(Exception):
    """A setting is wrong; the message says which."""


class IngestService:
    """One ingest process. ``port`` and ``metrics_port`` are the ones really bound."""

    def __init__(self, settings: Settings) -> None:
        """Reads the corps and takes both ports. Raises CannotStart, CorpsError or BadKey."""
        endpoints = {
            corp.corp_id: Endpoint(
                corp.corp_id,
                CallbackCrypto(corp.callback_token, corp.callback_aes_key, corp.corp_id),
                settings.max_callback_age_seconds,
            )
            for corp in load_corps(settings.corps).values()
        }
        registry = CollectorRegistry()
        metrics = IngestMetrics(registry)
        self._log = get_logger()
        self._event_log = EventLog(
            settings.kafka_bootstrap, client_id=f"siyu-ingest-{settings.instance}", metrics=metrics
        )
        self._socket = _listen(settings.host, settings.port)
        self.port: int = self._socket.getsockname()[1]
        self._turned_at = time.monotonic()
        try:
            self._ops = OpsServer(
                settings.metrics_host,
                settings.metrics_port,
                registry=registry,
                live=self._silent,
                ready=self._event_log.problem,
            )
        except OSError as error:
            self._socket.close()
            raise CannotStart(
                f"metrics port {settings.metrics_port}: {error.strerror}; set SIYU_METRICS_PORT"
            ) from None
        self.metrics_port: int = self._ops.port
        self._server = GuestServer(
            uvicorn.Config(
                CallbackApp(settings, endpoints, self._event_log, metrics),
                http=BoundedHeadProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                # Every delivery ends within answer_within_seconds, at most 4 s.
                timeout_graceful_shutdown=6,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._settings = settings

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, then finishes what is in flight and flushes Kafka.

        Raises what ended it, if anything other than ``stop`` did.
        """
        # EventLog reports each loss and return once; aiokafka reports every attempt, some ten a second.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        kafka = asyncio.create_task(self._event_log.run())
        http = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        heart = asyncio.create_task(self._beat())
        stopped = asyncio.create_task(stop.wait())
        self._log.info("started", port=self.port, settings=self._settings.redacted())
        try:
            await asyncio.wait({kafka, http, heart, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._log.info("stopping")
            self._server.should_exit = True
            stopped.cancel()
            await asyncio.wait({http})
            for task in (kafka, heart):
                task.cancel()
            ended = await asyncio.gather(kafka, http, heart, return_exceptions=True)
            self._socket.close()
            self._ops.close()
            self._log.info("stopped")
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error

    async def _beat(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    def _silent(self) -> str | None:
        silent = time.monotonic() - self._turned_at
        return None if silent < _LOOP_SILENT_SECONDS else f"loop silent for {silent:.0f} s"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise CannotStart(f"port {port} on {host}: {error.strerror}; set SIYU_PORT or SIYU_HOST") from None
