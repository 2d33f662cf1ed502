"""What a call to WeCom ends in, whatever comes back over the wire."""

import asyncio
import json
import logging
import socket

import pytest
from fake_wecom import Drop, FakeWecom, Hang, Raw

from siyu.wecom.client import Answer, NotSent, TooLarge, Unknown, WecomClient
from siyu.wecom.endpoints import ENDPOINTS

BILLS = ENDPOINTS["externalpay/get_bill_list"]
CONTACT = ENDPOINTS["externalcontact/get"]


async def call(wecom: FakeWecom, reply: object, timeout: float = 5.0) -> object:
    wecom.valid.add("t")
    wecom.on(BILLS.path, reply)  # type: ignore[arg-type]
    async with WecomClient(wecom.base_url, max_response_bytes=100_000) as client:
        return await client.call(BILLS, "t", b'{"limit": 3}', timeout)


async def test_a_post_carries_the_payload_as_it_is_and_the_token_in_the_query(wecom: FakeWecom) -> None:
    result = await call(wecom, {"errcode": 0, "bill_list": []})
    assert isinstance(result, Answer)
    assert (result.errcode, json.loads(result.body)) == (0, {"errcode": 0, "bill_list": []})
    (seen,) = wecom.calls
    assert (seen.method, seen.body, seen.query) == ("POST", {"limit": 3}, {"access_token": "t"})


async def test_a_get_carries_the_payload_as_parameters(wecom: FakeWecom) -> None:
    wecom.valid.add("t")
    async with WecomClient(wecom.base_url) as client:
        await client.call(CONTACT, "t", b'{"external_userid": "wm 1&x=\\u5f20", "cursor": null}', 5)
    (seen,) = wecom.calls
    assert (seen.method, seen.body) == ("GET", None)
    assert seen.query == {"access_token": "t", "external_userid": "wm 1&x=张"}


async def test_an_absent_errcode_is_success(wecom: FakeWecom) -> None:
    assert isinstance(result := await call(wecom, {"ip_list": []}), Answer)
    assert result.errcode == 0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Raw(b"<html>Bad Gateway</html>", status=502), "http_502"),
        (Raw(b"", status=302), "http_302"),
        (Raw(b"<html>captive portal</html>"), "not_wecom"),
        (Raw(b"[]", content_type="application/json"), "not_wecom"),
        (Raw(b'{"errcode": "no"}', content_type="application/json"), "not_wecom"),
        (Raw(b'{"errcode": 0', content_type="application/json"), "not_wecom"),
        (Drop(), "connection_broken"),
    ],
)
async def test_what_is_no_answer_may_have_been_carried_out(wecom: FakeWecom, reply: object, reason: str) -> None:
    result = await call(wecom, reply)
    assert isinstance(result, Unknown)
    assert result.reason == reason


async def test_silence_may_have_been_carried_out(wecom: FakeWecom) -> None:
    assert isinstance(result := await call(wecom, Hang(), timeout=0.2), Unknown)
    assert result.reason == "timeout"


async def test_a_refused_connection_was_not_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        async with WecomClient(f"http://127.0.0.1:{unused.getsockname()[1]}/cgi-bin") as client:
            result = await client.call(BILLS, "t", b"{}", 5)
    assert isinstance(result, NotSent)
    assert result.reason == "connection_refused"


async def test_an_answer_beyond_bounds_is_not_held(wecom: FakeWecom) -> None:
    assert isinstance(await call(wecom, {"errcode": 0, "x": "y" * 200_000}), TooLarge)


async def test_neither_token_nor_secret_reaches_a_log(
    wecom: FakeWecom, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    wecom.valid.add("hidden-token")
    wecom.on(BILLS.path, {"errcode": 0}, Raw(b"x", status=500), Drop())
    async with WecomClient(wecom.base_url) as client:
        await client.get_token("ww1", "hidden-secret", 5)
        for _ in range(3):
            await client.call(BILLS, "hidden-token", b"{}", 5)
    written = caplog.text + str(capsys.readouterr())
    assert "hidden" not in written


async def test_many_calls_share_connections(wecom: FakeWecom) -> None:
    wecom.valid.add("t")
    async with WecomClient(wecom.base_url) as client:
        results = await asyncio.gather(*(client.call(BILLS, "t", b"{}", 5) for _ in range(50)))
    assert all(isinstance(result, Answer) for result in results)
