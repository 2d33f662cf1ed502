"""The HTTP client that carries callbacks: what servers may do to it, and what it says became of a request."""

import asyncio
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.sender import Answer, BadUrl, Sender, Target


async def test_a_post_arrives_whole_and_its_status_comes_back(wire, sender):
    target = Target(f"{wire.url}/callback/wecom/ww1", content_type="text/xml")
    assert await sender.post(target, "nonce=1", b"<xml/>", timeout_s=5) == Answer(200)
    (request,) = wire.requests
    assert request.line == "POST /callback/wecom/ww1?nonce=1 HTTP/1.1"
    assert request.header("Host") == f"127.0.0.1:{wire.port}"
    assert request.header("Content-Type") == "text/xml"
    assert (request.header("Content-Length"), request.body) == ("6", b"<xml/>")


@pytest.mark.covers("fact:6.1")
async def test_the_urls_own_parameters_stay_in_front(wire, sender):
    """1.1: a URL may have query parameters of its own, and they survive."""
    for own, sent in (("?a=1&b=%20x", "?a=1&b=%20x&nonce=1"), ("?a=门", "?a=%E9%97%A8&nonce=1"), ("", "?nonce=1")):
        await sender.post(Target(f"{wire.url}/c b/{own}"), "nonce=1", b"", timeout_s=5)
        assert wire.requests[-1].line == f"POST /c%20b/{sent} HTTP/1.1"


async def test_connections_are_kept_and_no_more_are_opened_than_are_needed(wire, sender):
    target = Target(wire.url)
    for _ in range(5):
        await sender.post(target, "", b"x", timeout_s=5)
    assert wire.connections == 1
    together = [sender.post(target, "", b"x", timeout_s=5) for _ in range(20)]
    assert set(await asyncio.gather(*together)) == {Answer(200)}
    assert wire.connections <= 4, "as many as may be under way at once"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsuccess", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsuc\r\n4\r\ncess\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503),
    ],
    ids=["204", "304", "length", "chunks", "continue"],
)
async def test_every_kind_of_answer_ends_where_it_ends(wire, sender, answer, status):
    wire.answer = lambda _: answer
    for _ in range(3):
        assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(status)
    assert wire.connections == 1


async def test_an_answer_in_single_bytes_is_an_answer(wire, sender):
    async def dribble(request):
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
            wire.streams[-1].write(bytes([byte]))
            await asyncio.sleep(0)
        return None

    wire.answer = dribble
    assert await sender.get(Target(wire.url), "", timeout_s=5) == Answer(200, b"ok")


async def test_a_body_without_length_ends_with_the_connection(wire, sender):
    wire.answer, wire.close_after = (lambda _: b"HTTP/1.1 200 OK\r\n\r\nuntil the end"), True
    for _ in range(2):
        assert await sender.get(Target(wire.url), "", timeout_s=5) == Answer(200, b"until the end")
    assert wire.connections == 2


async def test_a_server_that_closes_after_each_answer_is_connected_to_again(wire, sender):
    wire.answer = lambda _: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    wire.close_after = True
    for _ in range(3):
        assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(200)
    assert wire.connections == 3


async def test_a_kept_connection_the_server_has_closed_costs_nothing(wire, sender):
    await sender.post(Target(wire.url), "", b"x", timeout_s=5)
    wire.hang_up()
    await asyncio.sleep(0.05)
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(200)
    assert len(wire.requests) == 2


async def test_a_kept_connection_that_ends_without_an_answer_is_tried_once_more_on_a_new_one(wire, sender):
    await sender.post(Target(wire.url), "", b"first", timeout_s=5)

    def close_kept(request):
        if request.number > 1:
            wire.hang_up()
            return None
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    wire.answer = close_kept
    assert await sender.post(Target(wire.url), "", b"second", timeout_s=5) == Answer(200)
    assert [(r.connection, r.body) for r in wire.requests] == [(1, b"first"), (1, b"second"), (2, b"second")]


async def test_a_new_connection_that_ends_without_an_answer_is_not_tried_again(wire, sender):
    wire.answer, wire.close_after = (lambda _: None), True
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(0, failure="broken")
    assert len(wire.requests) == 1


async def test_what_was_half_answered_is_not_tried_again(wire, sender):
    await sender.post(Target(wire.url), "", b"x", timeout_s=5)
    wire.answer, wire.close_after = (lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), True
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(0, failure="broken")
    assert len(wire.requests) == 2


@pytest.mark.parametrize(
    "nonsense", [b"\x00\x01\x02\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 999999 X\r\n\r\n"]
)
async def test_what_is_not_http_is_broken(wire, sender, nonsense):
    wire.answer = lambda _: nonsense
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(0, failure="broken")
    wire.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(200)


async def test_a_second_answer_to_one_request_ends_the_connection(wire, sender):
    once = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    wire.answer = lambda _: once + b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(200)
    wire.answer = lambda _: once
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=5) == Answer(200)
    assert wire.connections == 2


@pytest.mark.covers("fact:6.2")
async def test_a_receiver_that_does_not_answer_in_time_is_hung_up_on(wire, sender):
    """1.7: what is not answered in time is given up, and the platform closes the connection."""
    ended = asyncio.Event()

    async def hang(_):
        await asyncio.sleep(0.02)
        while not wire.streams[-1].is_closing() and not wire.streams[-1].transport.is_closing():
            wire.streams[-1].write(b"H")
            await asyncio.sleep(0.01)
        ended.set()

    wire.answer = hang
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=0.01) == Answer(0, failure="timeout")
    async with asyncio.timeout(10):
        await ended.wait()


async def test_headers_without_the_rest_are_no_answer(wire, sender):
    wire.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234"
    assert await sender.post(Target(wire.url), "", b"x", timeout_s=0.05) == Answer(0, failure="timeout")


async def test_nobody_there_and_no_such_host_are_unreachable(sender):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = Target(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert await sender.post(target, "", b"x", timeout_s=5) == Answer(0, failure="unreachable")
    assert (await sender.post(Target("http://nowhere.invalid/"), "", b"", timeout_s=5)).failure == "unreachable"


async def test_plain_text_on_an_https_port_is_unreachable(wire, sender):
    target = Target(f"https://127.0.0.1:{wire.port}/")
    assert (await sender.post(target, "", b"x", timeout_s=0.2)).failure in ("unreachable", "timeout")


async def test_https_with_a_certificate_of_ones_own(tmp_path):
    certificate, key = self_signed(tmp_path)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
    target = Target(f"https://localhost:{server.sockets[0].getsockname()[1]}/")
    trusting, other = Sender(tls=ssl.create_default_context(cafile=certificate)), Sender()
    assert await trusting.post(target, "", b"", timeout_s=5) == Answer(200)
    assert (await other.post(target, "", b"", timeout_s=5)).failure == "unreachable", "a stranger's certificate"
    await trusting.close()
    await other.close()
    server.close()


async def test_connections_to_one_origin_make_room_for_another(wire):
    sender = Sender(concurrency=1)
    others = [await asyncio.start_server(wire.serve, "127.0.0.1", 0) for _ in range(3)]
    for server in [*others, *others]:
        target = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert await sender.post(target, "", b"", timeout_s=5) == Answer(200)
    assert wire.connections == 6, "one connection is open at a time, so none can be kept for the way back"
    await sender.close()
    for server in others:
        server.close()


async def test_a_cancelled_request_takes_its_connection_along(wire, sender):
    asked = asyncio.Event()

    def never(_):
        asked.set()

    wire.answer = never
    task = asyncio.create_task(sender.post(Target(wire.url), "", b"x", timeout_s=5))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wire.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert await sender.post(Target(wire.url), "", b"y", timeout_s=5) == Answer(200)
    assert [r.connection for r in wire.requests] == [1, 2]


async def test_closing_ends_what_is_under_way(wire, sender):
    asked = asyncio.Event()

    def never(_):
        asked.set()

    wire.answer = never
    task = asyncio.create_task(sender.post(Target(wire.url), "", b"x", timeout_s=5))
    await asked.wait()
    await sender.close()
    assert (await task).failure == "broken"
    assert (await sender.post(Target(wire.url), "", b"x", timeout_s=5)).failure == "broken"


@pytest.mark.parametrize("url", ["", "receiver/x", "ftp://receiver/", "http://", "http://a:b@receiver/", "http://r:x/"])
def test_what_is_no_url_is_said_at_once(url):
    with pytest.raises(BadUrl):
        Target(url)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_path_or_query_can_break_out_of_the_request_line(path, query):
    try:
        target = Target(f"http://receiver/{path}?{query}")
    except BadUrl:
        return
    head, _, body = target.post("nonce=1", b"body").partition(b"\r\n\r\n")
    assert body == b"body"
    lines = head.split(b"\r\n")
    assert [line.partition(b":")[0] for line in lines[1:]] == [b"Host", b"Content-Type", b"Content-Length"]
    assert lines[0].count(b" ") == 2
    assert not set(lines[0]) & {*range(0x20), 0x7F}


def self_signed(folder):
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])
