"""A client that ends badly does not take along whoever throws it away."""

import asyncio

import pytest

from services.executor.closing import asked_to_end, close_client


class Connections:
    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Client:
    """As aiokafka's producer: ``stop``, and ``client`` with its connections."""

    def __init__(self, ends: BaseException | None, *, hangs: bool = False) -> None:
        self.client = Connections()
        self._ends = ends
        self._hangs = hangs

    async def stop(self) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        if self._ends is not None:
            raise self._ends


async def test_a_client_that_ends_well_says_nothing() -> None:
    assert await close_client(Client(None), 5) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("client", "problem"),
    [
        (Client(asyncio.CancelledError()), "CancelledError"),
        (Client(OSError("gone")), "OSError"),
        (Client(None, hangs=True), "TimeoutError"),
    ],
)
async def test_whatever_it_dies_of_its_connections_end_and_the_caller_goes_on(client: Client, problem: str) -> None:
    assert await close_client(client, 0.01) == problem  # type: ignore[arg-type]
    assert client.client.closed


async def test_a_caller_that_is_to_end_is_told_apart_from_a_request_that_was_dropped() -> None:
    told: list[bool] = []

    async def work(request: "asyncio.Future[None]") -> None:
        try:
            await request
        except asyncio.CancelledError:
            told.append(asked_to_end())

    dropped = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work(dropped))
    await asyncio.sleep(0)
    dropped.cancel()
    await task
    task = asyncio.create_task(work(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert told == [False, True]
