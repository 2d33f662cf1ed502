"""Whether somebody listens on a port."""

import socket

import pytest

from deploy.local.ports import answers, free_ports


def test_a_listener_answers_and_nobody_does_not() -> None:
    (port,) = free_ports(1)
    assert not answers("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert answers("127.0.0.1", port)


def test_a_caller_that_was_given_the_port_it_calls_has_reached_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def call_oneself(address: tuple[str, int], timeout: float) -> socket.socket:
        itself = socket.socket()
        itself.bind(address)
        itself.connect(address)
        return itself

    monkeypatch.setattr(socket, "create_connection", call_oneself)
    (port,) = free_ports(1)
    assert not answers("127.0.0.1", port)
