"""``/livez``, ``/readyz`` and ``/metrics`` of a service, on a thread of its own so that a busy loop still answers.

``/livez`` asks only whether the service's loop turns (never Kafka or ClickHouse: a broker that is down is no reason to
restart us); ``/readyz`` whether it is restored and connected. A check returns None when all is well, else a short
reason without data in it.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Check = Callable[[], str | None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A prober that had gone before we answered, as when this process was frozen, is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class OpsServer:
    """Serves the three paths until :meth:`close`. ``port`` is the one really bound (useful when asked for 0)."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        live: Check,
        ready: Check,
        listener: socket.socket | None = None,
    ) -> None:
        """Binds at once; raises OSError when the port is taken (setting ``SIYU_METRICS_PORT``).

        ``listener`` is a socket that is bound already, to be used instead of ``host`` and ``port``.
        """

        class Handler(BaseHTTPRequestHandler):
            server_version = "siyu"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, encode(registry), content_type)
                elif path in ("/livez", "/readyz"):
                    reason = live() if path == "/livez" else ready()
                    body = "ok\n" if reason is None else reason + "\n"
                    self._answer(200 if reason is None else 503, body.encode(), "text/plain; charset=utf-8")
                else:
                    self._answer(404, b"not found: /livez, /readyz or /metrics\n", "text/plain; charset=utf-8")

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Scrapes are not events of interest."""

        if listener is None:
            self._server = _Server((host, port), Handler)
        else:
            self._server = _Server(listener.getsockname(), Handler, bind_and_activate=False)
            self._server.socket.close()
            self._server.socket = listener
            self._server.server_activate()
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="ops", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops answering and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
