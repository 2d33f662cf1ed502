import asyncio
import json
from collections.abc import Callable

import pytest

from services.executor.tokens import Tokens, TokenUnavailable
from siyu.ops.corps import Corp
from siyu.wecom.client import Answer, NotSent, Result
from siyu.wecom.errors import ErrorTable

CORP = Corp(corp_id="ww1", agent_id="1", secret="s", callback_token="t", callback_aes_key="k" * 43)


class Platform:
    """gettoken, scripted, and the time."""

    def __init__(self, table: ErrorTable) -> None:
        self.now = 1000.0
        self.asked = 0
        self.answers: list[Callable[[int], Result]] = []
        self.gate: asyncio.Event | None = None
        self.renewals: list[str] = []
        self.tokens = Tokens(
            {"ww1": CORP},
            self.fetch,
            lambda: table,
            renewed=lambda corp_id, result: self.renewals.append(result),
            monotonic=lambda: self.now,
        )

    async def fetch(self, corp: Corp) -> Result:
        self.asked += 1
        number = self.asked
        if self.gate is not None:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)
        return self.answers.pop(0)(number) if self.answers else issue(number)


def issue(number: int, expires_in: int = 7200) -> Answer:
    body = {"errcode": 0, "access_token": f"token-{number}", "expires_in": expires_in}
    return Answer(0, json.dumps(body).encode(), 0.0)


def error(errcode: int) -> Callable[[int], Result]:
    return lambda number: Answer(errcode, b'{"errcode": %d}' % errcode, 0.0)


@pytest.fixture
def platform(table: ErrorTable) -> Platform:
    return Platform(table)


async def test_a_thousand_callers_make_one_request(platform: Platform) -> None:
    got = await asyncio.gather(*(platform.tokens.get("ww1") for _ in range(1000)))
    assert set(got) == {"token-1"}
    assert platform.asked == 1


async def test_a_refused_token_is_renewed_once_however_many_were_refused(platform: Platform) -> None:
    token = await platform.tokens.get("ww1")
    platform.now += 100

    async def refused_caller() -> str:
        platform.tokens.refused("ww1", token)
        return await platform.tokens.get("ww1")

    assert set(await asyncio.gather(*(refused_caller() for _ in range(100)))) == {"token-2"}
    platform.tokens.refused("ww1", token)  # somebody slow, with the old one
    assert await platform.tokens.get("ww1") == "token-2"
    assert platform.asked == 2


async def test_renewed_early_while_the_old_one_still_serves(platform: Platform) -> None:
    assert await platform.tokens.get("ww1") == "token-1"
    platform.now += 7200 * 0.9 + 1
    platform.gate = asyncio.Event()
    assert await platform.tokens.get("ww1") == "token-1"
    assert await platform.tokens.get("ww1") == "token-1"
    await asyncio.sleep(0)
    assert platform.asked == 2
    platform.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert await platform.tokens.get("ww1") == "token-2"
    assert platform.asked == 2


async def test_an_expired_token_is_not_used(platform: Platform) -> None:
    await platform.tokens.get("ww1")
    platform.now += 7201
    assert await platform.tokens.get("ww1") == "token-2"


async def test_a_wrong_secret_is_not_hammered(platform: Platform) -> None:
    platform.answers = [error(40001)] * 100
    for _ in range(3600):
        with pytest.raises(TokenUnavailable) as caught:
            await platform.tokens.get("ww1")
        assert caught.value.final
        assert caught.value.errcode == 40001
        platform.now += 1
    assert platform.asked <= 14
    assert set(platform.renewals) == {"refused"}


async def test_an_unreachable_platform_is_asked_again_ever_more_slowly_and_then_works(platform: Platform) -> None:
    platform.answers = [lambda number: NotSent("connection_refused", 0.0)] * 3 + [error(-1)]
    for _ in range(4):
        with pytest.raises(TokenUnavailable) as caught:
            await platform.tokens.get("ww1")
        assert not caught.value.final
        platform.now += caught.value.retry_in_seconds
    assert await platform.tokens.get("ww1") == "token-5"
    assert platform.renewals == ["no_answer"] * 3 + ["refused", "ok"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"errcode":0}',
        b'{"errcode":0,"access_token":"","expires_in":7200}',
        b'{"errcode":0,"access_token":"t","expires_in":0}',
        b'{"errcode":0,"access_token":7,"expires_in":7200}',
        b'{"errcode":0,"access_token":"' + b"x" * 513 + b'","expires_in":7200}',
    ],
)
async def test_an_answer_without_a_usable_token_is_no_token(platform: Platform, body: bytes) -> None:
    platform.answers = [lambda number: Answer(0, body, 0.0)]
    with pytest.raises(TokenUnavailable):
        await platform.tokens.get("ww1")


async def test_a_platform_that_refuses_what_it_hands_out_is_not_asked_in_a_loop(platform: Platform) -> None:
    platform.tokens.refused("ww1", await platform.tokens.get("ww1"))
    with pytest.raises(TokenUnavailable) as caught:
        await platform.tokens.get("ww1")
    assert not caught.value.final
    platform.now += caught.value.retry_in_seconds
    assert await platform.tokens.get("ww1") == "token-2"


async def test_one_callers_cancellation_does_not_take_the_token_from_the_others(platform: Platform) -> None:
    platform.gate = asyncio.Event()
    first = asyncio.create_task(platform.tokens.get("ww1"))
    second = asyncio.create_task(platform.tokens.get("ww1"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    platform.gate.set()
    assert await second == "token-1"
