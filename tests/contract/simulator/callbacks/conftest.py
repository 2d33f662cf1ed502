"""A receiver on a real socket that answers in bytes, so that tests decide everything a server may do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from simulator.apps import App
from simulator.sender import Sender

CORP_ID = "wx5823bf96d3bd56c7"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def pytest_asyncio_loop_factories(config, item):
    """The simulator runs on uvloop; other programs may use its sender on the standard loop."""
    standard = {"asyncio": asyncio.new_event_loop}
    return {**standard, "uvloop": uvloop.new_event_loop} if item.path.name == "test_sender.py" else standard


@pytest.fixture
def app() -> Callable[..., App]:
    """Makes apps with valid keys; nothing is known of each but what the test says."""

    def make(
        url: str,
        *,
        agent_id: str = "1000002",
        corp_id: str = CORP_ID,
        token: str = "QDG6eK",
        key: str = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
        events: frozenset[str] = frozenset(),
    ) -> App:
        return App(
            corp_id=corp_id,
            agent_id=agent_id,
            secret="s",
            callback_token=token,
            callback_aes_key=key,
            callback_url=url,
            events=events,
        )

    return make


@dataclass
class Request:
    """One request as it came over the wire; ``connection`` and ``number`` say where it stands."""

    head: bytes
    body: bytes
    connection: int
    number: int

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    def header(self, name: str) -> str:
        found = [line for line in self.head.decode().split("\r\n")[1:] if line.lower().startswith(name.lower() + ":")]
        assert len(found) == 1, f"{name}: {found}"
        return found[0].partition(":")[2].strip()


@dataclass
class Wire:
    """The receiver. ``answer``: bytes to send back, None to say nothing; what it returns may be awaited."""

    port: int = 0
    answer: Callable[[Request], Awaitable[bytes | None] | bytes | None] = lambda _: OK
    close_after: bool = False
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        for stream in self.streams:
            stream.close()
        self.streams.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.streams.append(writer)
        connection, number = self.connections, 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                number += 1
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].partition(b":")[2]) if lengths else 0)
                request = Request(head, body, connection, number)
                self.requests.append(request)
                answer = self.answer(request)
                if answer is not None and not isinstance(answer, bytes):
                    answer = await answer
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                if self.close_after:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    made.hang_up()
    await asyncio.sleep(0)


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender(concurrency=4)
    yield made
    await made.close()
