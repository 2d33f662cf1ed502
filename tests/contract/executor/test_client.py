"""What a call to WeCom ends in, whatever comes back over the wire."""

import asyncio
import gc
import json
import logging
import socket

import pytest
from fake_wecom import Drip, Drop, FakeWecom, Hang, Raw, Twice, Wire

from siyu.wecom.client import Answer, NotSent, TooLarge, Unknown, WecomClient
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN, Endpoint

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
        (Raw(b"", status=307, headers=("Location: /cgi-bin/elsewhere",)), "http_307"),
        (Drop(), "connection_broken"),
        (Wire(b"SSH-2.0-OpenSSH_9.6\r\n"), "connection_broken"),
        (Wire(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"errcode": 0}'), "connection_broken"),
        (Wire(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"errcode": 0}'), "connection_broken"),
        (Wire(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"), "connection_broken"),
        (Wire(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), "connection_broken"),
    ],
)
async def test_what_is_no_answer_may_have_been_carried_out(wecom: FakeWecom, reply: object, reason: str) -> None:
    result = await call(wecom, reply)
    assert isinstance(result, Unknown)
    assert result.reason == reason
    assert len(wecom.calls) == 1


async def test_silence_may_have_been_carried_out(wecom: FakeWecom) -> None:
    assert isinstance(result := await call(wecom, Hang(), timeout=0.2), Unknown)
    assert result.reason == "timeout"


async def test_an_answer_that_trickles_in_holds_its_slot_no_longer_than_the_deadline(wecom: FakeWecom) -> None:
    assert isinstance(result := await call(wecom, Drip(0.01), timeout=0.3), Unknown)
    assert result.reason == "timeout"


async def test_a_refused_connection_was_not_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        async with WecomClient(f"http://127.0.0.1:{unused.getsockname()[1]}/cgi-bin") as client:
            result = await client.call(BILLS, "t", b"{}", 5)
    assert isinstance(result, NotSent)
    assert result.reason == "connection_refused"


async def test_a_connection_nobody_accepts_was_not_sent() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):  # more than the backlog: the next attempt hangs
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with WecomClient(f"http://127.0.0.1:{full.getsockname()[1]}/cgi-bin") as client:
            result = await client.call(BILLS, "t", b"{}", 0.2)
    assert isinstance(result, NotSent)
    assert result.reason == "connect_timeout"


async def test_a_call_that_gets_no_connection_was_not_sent(wecom: FakeWecom) -> None:
    wecom.on(BILLS.path, holding := Hang())
    wecom.valid.add("t")
    async with WecomClient(wecom.base_url, max_connections=1) as client:
        first = asyncio.create_task(client.call(BILLS, "t", b"{}", 30))
        await wecom.wait_for_calls(BILLS.path, 1)
        second = await client.call(BILLS, "t", b"{}", 0.2)
        holding.released.set()
        assert isinstance(await first, Answer)
    assert isinstance(second, NotSent)
    assert second.reason == "no_free_connection"
    assert len(wecom.calls) == 1


@pytest.mark.parametrize("endpoint", [BILLS, CONTACT], ids=["POST", "GET"])
@pytest.mark.parametrize("used", [True, False], ids=["used-connection", "new-connection"])
async def test_a_call_that_came_too_late_while_it_waited_for_a_connection_is_not_sent(
    wecom: FakeWecom, endpoint: Endpoint, used: bool
) -> None:
    # After an answer the connection is used again; after a call that was given up there has to be a new one.
    wecom.on(BILLS.path, holding := Hang())
    wecom.valid.add("t")
    asked = 0
    late = False

    def may_start() -> bool:
        nonlocal asked
        asked += 1
        return not late

    async with WecomClient(wecom.base_url, max_connections=1) as client:
        first = asyncio.create_task(client.call(BILLS, "t", b"{}", 30))
        await wecom.wait_for_calls(BILLS.path, 1)
        second = asyncio.create_task(client.call(endpoint, "t", b"{}", 30, may_start))
        await asyncio.sleep(0.05)
        assert asked == 0
        late = True
        if used:
            holding.released.set()
            await first
        else:
            first.cancel()
        result = await second
        assert isinstance(result, NotSent)
        assert result.reason == "too_late"
        assert asked == 1
        late = False
        holding.released.set()
        assert isinstance(await client.call(endpoint, "t", b"{}", 30, may_start), Answer)
    assert len(wecom.calls) == 2


async def test_a_token_is_not_asked_for_too_late(wecom: FakeWecom) -> None:
    async with WecomClient(wecom.base_url) as client:
        result = await client.get_token("ww1", "s", 5, lambda: False)
        assert isinstance(result, NotSent)
        assert result.reason == "too_late"
        assert not wecom.calls
        assert isinstance(await client.get_token("ww1", "s", 5, lambda: True), Answer)
    assert len(wecom.calls) == 1


@pytest.mark.parametrize("endpoint", [BILLS, CONTACT], ids=["POST", "GET"])
async def test_a_request_on_a_connection_that_is_closed_under_it_is_not_sent_again(
    wecom: FakeWecom, endpoint: Endpoint
) -> None:
    wecom.valid.add("t")
    wecom.on(endpoint.path, {"errcode": 0}, Drop())
    async with WecomClient(wecom.base_url, max_connections=1) as client:
        assert isinstance(await client.call(endpoint, "t", b"{}", 5), Answer)
        result = await client.call(endpoint, "t", b"{}", 5)
    assert isinstance(result, Unknown)
    assert result.reason == "connection_broken"
    assert len(wecom.calls) == 2


async def test_what_comes_unasked_is_no_answer_to_the_next_call(wecom: FakeWecom) -> None:
    wecom.valid.add("t")
    wecom.on(BILLS.path, Twice({"errcode": 0}, {"errcode": 999}), {"errcode": 1})
    async with WecomClient(wecom.base_url, max_connections=1) as client:
        await client.call(BILLS, "t", b"{}", 5)
        await asyncio.sleep(0.1)
        result = await client.call(BILLS, "t", b"{}", 5)
        if isinstance(result, NotSent):  # the spoilt connection is gone, and a repeat is safe
            result = await client.call(BILLS, "t", b"{}", 5)
    assert isinstance(result, Answer)
    assert result.errcode == 1


async def test_a_call_that_is_cancelled_leaves_nothing_to_the_next(wecom: FakeWecom) -> None:
    wecom.valid.add("t")
    wecom.on(BILLS.path, Hang(), {"errcode": 7})
    async with WecomClient(wecom.base_url, max_connections=1) as client:
        abandoned = asyncio.create_task(client.call(BILLS, "t", b"{}", 30))
        await wecom.wait_for_calls(BILLS.path, 1)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        result = await client.call(BILLS, "t", b"{}", 5)
    assert isinstance(result, Answer)
    assert result.errcode == 7


async def test_every_character_of_a_token_arrives(wecom: FakeWecom) -> None:
    token = "".join(map(chr, range(33, 127))) + "%2B"
    wecom.valid.add(token)
    async with WecomClient(wecom.base_url) as client:
        assert isinstance(result := await client.call(BILLS, token, b"{}", 5), Answer)
    assert result.errcode == 0


async def test_neither_a_cookie_nor_a_proxy_of_the_environment_is_used(
    wecom: FakeWecom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    wecom.valid.add("t")
    wecom.on(BILLS.path, Raw(b"{}", headers=("Set-Cookie: a=b; Path=/",)))
    async with WecomClient(
        wecom.base_url.replace("127.0.0.1", "localhost")
    ) as client:  # no cookie is kept for an address
        for _ in range(2):
            assert isinstance(await client.call(BILLS, "t", b"{}", 5), Answer)
    assert not any("cookie" in seen.headers for seen in wecom.calls)


@pytest.mark.parametrize("base_url", ["", "wecom.invalid/cgi-bin", "ftp://wecom.invalid/cgi-bin", "https:///cgi-bin"])
async def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="not the http"):
        WecomClient(base_url)


@pytest.mark.parametrize(
    "made_up",
    [
        Endpoint("externalcontact/del_external_contact", "POST", "set", "contact"),
        Endpoint(GETTOKEN, "GET", "read", GETTOKEN),
        Endpoint(CONTACT.path, "POST", CONTACT.repeat, CONTACT.group),
    ],
)
async def test_nothing_is_called_but_the_documented_endpoints(wecom: FakeWecom, made_up: Endpoint) -> None:
    async with WecomClient(wecom.base_url) as client:
        with pytest.raises(ValueError, match="not a documented endpoint"):
            await client.call(made_up, "t", b"{}", 5)
    assert not wecom.calls


async def test_an_answer_beyond_bounds_is_not_held(wecom: FakeWecom) -> None:
    assert isinstance(await call(wecom, {"errcode": 0, "x": "y" * 200_000}), TooLarge)


async def test_neither_token_nor_secret_reaches_a_log(
    wecom: FakeWecom, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    wecom.valid.add("hidden-token")
    wecom.on(BILLS.path, {"errcode": 0}, Raw(b"x", status=500), Drop(), Wire(b"HTTP/1.1 nothing\r\n\r\n"), Hang())
    async with WecomClient(wecom.base_url) as client:
        await client.get_token("ww1", "hidden-secret", 5)
        for _ in range(5):
            await client.call(BILLS, "hidden-token", b"{}", 0.5)
        await client.call(BILLS, "hidden-token", b"{}", 5, lambda: False)
    gc.collect()
    await asyncio.sleep(0)
    written = caplog.text + str(capsys.readouterr())
    assert "hidden" not in written


async def test_many_calls_share_connections(wecom: FakeWecom) -> None:
    wecom.valid.add("t")
    async with WecomClient(wecom.base_url) as client:
        results = await asyncio.gather(*(client.call(BILLS, "t", b"{}", 5) for _ in range(50)))
    assert all(isinstance(result, Answer) for result in results)
