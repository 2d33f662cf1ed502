"""The three operational paths answer what the checks say."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from siyu.ops.health import OpsServer


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_liveness_readiness_and_metrics_are_answered_from_the_checks() -> None:
    registry = CollectorRegistry()
    Counter("siyu_test_things", "Things.", registry=registry).inc(3)
    reason: dict[str, str | None] = {"live": None, "ready": "restoring"}
    server = OpsServer("127.0.0.1", 0, registry=registry, live=lambda: reason["live"], ready=lambda: reason["ready"])
    try:
        assert _get(server.port, "/livez") == (200, "ok\n")
        assert _get(server.port, "/readyz") == (503, "restoring\n")
        reason.update(live="stuck", ready=None)
        assert _get(server.port, "/livez") == (503, "stuck\n")
        assert _get(server.port, "/readyz")[0] == 200
        status, body = _get(server.port, "/metrics")
        assert status == 200
        assert "siyu_test_things_total 3.0" in body
        assert _get(server.port, "/else")[0] == 404
        with pytest.raises(OSError, match="in use"):
            OpsServer("127.0.0.1", server.port, registry=registry, live=lambda: None, ready=lambda: None)
    finally:
        server.close()


def test_a_socket_that_somebody_else_bound_is_answered_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        server = OpsServer(
            "192.0.2.1",
            1,
            registry=CollectorRegistry(),
            live=lambda: None,
            ready=lambda: None,
            listener=bound.dup(),
        )
        try:
            assert server.port == port
            assert _get(port, "/livez") == (200, "ok\n")
        finally:
            server.close()
