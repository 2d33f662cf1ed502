"""Metadata are asked for at a pace, whatever the broker answers and however often somebody wants them."""

import asyncio

from aiokafka import AIOKafkaProducer

from services.executor.metadata_pace import pace_metadata, paced

LONG_S = 60.0


class Broker:
    def __init__(self) -> None:
        self.asked = 0

    async def answer(self) -> bool:
        self.asked += 1
        return True


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_answer_at_once_is_handed_out_later_and_to_everybody() -> None:
    broker = Broker()
    ask = paced(broker.answer, LONG_S)
    first, second = ask(), ask()
    await turns()
    assert broker.asked == 1
    assert not first.done()
    assert not second.done()


async def test_after_the_pause_it_is_asked_anew() -> None:
    broker = Broker()
    ask = paced(broker.answer, 0.001)
    assert await ask()
    assert await ask()
    assert broker.asked == 2


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    ask = paced(Broker().answer, 0.001)
    first, second = ask(), ask()
    await turns()
    first.cancel()
    assert await second


async def test_the_producer_has_what_is_paced() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    before = producer.client.force_metadata_update
    pace_metadata(producer)
    assert producer._sender.client.force_metadata_update is not before
    assert "paced" in producer._sender.client.force_metadata_update.__qualname__
    await producer.stop()
