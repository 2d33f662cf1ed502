import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.executor.performer import Ticket
from services.executor.window import DeadLetter, Entry, PartitionWindow, Result


def letter(number: int) -> DeadLetter:
    return DeadLetter(None, str(number).encode(), [])


@given(st.lists(st.sampled_from(["done", "abandoned", "open"]), max_size=20))
def test_only_the_finished_prefix_may_be_committed(states: list[str]) -> None:
    async def scenario() -> None:
        window = PartitionWindow()
        opened: list[asyncio.Future[Any]] = []

        async def work(number: int, state: str) -> Result | None:
            if state == "open":
                opened.append(asyncio.get_running_loop().create_future())
                await opened[-1]
            return None if state == "abandoned" else letter(number)

        for number, state in enumerate(states):
            window.take(Entry(number * 3, Ticket(), asyncio.create_task(work(number, state))))
        for _ in range(3):
            await asyncio.sleep(0)
        expected = next((i for i, state in enumerate(states) if state != "done"), len(states))
        finished = list(window.finished())
        assert [entry.offset for entry, _ in finished] == [i * 3 for i in range(expected)]
        assert [result for _, result in finished] == [letter(i) for i in range(expected)]
        window.committed(len(finished))
        assert len(window) == len(states) - expected
        window.abort()
        await asyncio.gather(*window.tasks(), return_exceptions=True)

    asyncio.run(scenario())


async def test_a_stop_spares_calls_under_way_and_gives_up_what_waits() -> None:
    window = PartitionWindow()
    answer = asyncio.Event()
    tickets = [Ticket(), Ticket()]

    async def work(ticket: Ticket, calls: bool) -> Result | None:
        ticket.calling = calls
        await answer.wait()
        return letter(0)

    for offset, (ticket, calls) in enumerate(zip(tickets, (True, False), strict=True)):
        window.take(Entry(offset, ticket, asyncio.create_task(work(ticket, calls))))
    await asyncio.sleep(0)
    window.stop()
    answer.set()
    await asyncio.wait(window.tasks())
    assert [entry.offset for entry, _ in window.finished()] == [0]
    assert all(ticket.stopping for ticket in tickets)
