"""The console's check of a callback URL, against receivers that do it right, nearly right and wrong."""

from urllib.parse import parse_qs, urlsplit

import pytest
from wechatpy.enterprise.crypto import WeChatCrypto

from simulator.echo import verify_url, verify_urls
from simulator.sender import Sender

CORP_ID = "wx5823bf96d3bd56c7"
LIBRARY = WeChatCrypto("QDG6eK", "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C", CORP_ID)


def plaintext(request) -> bytes:
    """What an independent library reads out of the request."""
    query = parse_qs(urlsplit(request.line.split(" ")[1]).query)
    names = ("msg_signature", "timestamp", "nonce", "echostr")
    echo = LIBRARY.check_signature(*(query[name][0] for name in names))
    return echo if isinstance(echo, bytes) else echo.encode()


def ok(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.covers("fact:6.1")
async def test_the_bare_plaintext_in_time_saves_the_configuration(app, wire, sender):
    """1.2: a signed GET with an encrypted echostr, percent-encoded; the answer is 19 to 23 digits and nothing else."""
    seen: list[bytes] = []

    def answer(request):
        assert request.line.startswith("GET /callback?own=1&msg_signature=")
        assert not set("+/=") & set(request.line.partition("echostr=")[2].split(" ")[0])
        seen.append(plaintext(request))
        return ok(seen[-1])

    wire.answer = answer
    for _ in range(20):
        verified = await verify_url(app(f"{wire.url}/callback?own=1"), sender)
        assert (verified.problem, verified.saved) == ("", True)
    assert all(text.isdigit() and 19 <= len(text) <= 23 for text in seen)
    assert len(set(seen)) == 20


@pytest.mark.covers("fact:6.1")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: b"\xef\xbb\xbf" + text, "byte order mark"),
        (lambda text: text + b"\n", "line break"),
        (lambda text: b'"' + text + b'"', "quotation marks"),
        (lambda _: b"", "empty body"),
        (lambda _: b"success", "another text"),
        (lambda text: text[:-1], "another text"),
    ],
)
async def test_anything_but_the_bare_plaintext_is_refused(app, wire, sender, change, problem):
    """1.2: no quotes, no BOM, no newline."""
    wire.answer = lambda request: ok(change(plaintext(request)))
    verified = await verify_url(app(f"{wire.url}/callback"), sender)
    assert problem in verified.problem
    assert not verified.saved


@pytest.mark.covers("fact:6.1")
async def test_other_statuses_silence_and_nobody_are_told_apart(app, wire, sender):
    """1.2: HTTP 200 within one second."""
    wire.answer = lambda request: ok(plaintext(request), "403 Forbidden")
    assert "status 403" in (await verify_url(app(wire.url), sender)).problem
    wire.answer = lambda _: None
    verified = await verify_url(app(wire.url), sender, limit_s=0.05)
    assert verified.problem == "no answer within 0.05 s"
    wire.close_after = True
    assert "ended before" in (await verify_url(app(wire.url), sender)).problem
    assert "no connection" in (await verify_url(app("http://127.0.0.1:1/"), sender)).problem
    assert "are needed" in (await verify_url(app("receiver"), sender)).problem


def test_all_apps_of_a_configuration_from_outside_a_loop(app):
    found = verify_urls([app("http://127.0.0.1:1/"), app(""), app("http://127.0.0.1:1/", agent_id="1000003")])
    assert [(v.agent_id, v.saved) for v in found] == [("1000002", False), ("1000003", False)]


async def test_the_sender_is_left_usable(app, wire):
    sender = Sender(concurrency=1)
    wire.answer = lambda request: ok(plaintext(request))
    for _ in range(3):
        assert (await verify_url(app(wire.url), sender)).saved
    assert wire.connections == 1
    await sender.close()
