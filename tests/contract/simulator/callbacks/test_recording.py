"""Recordings: the same seed gives the same bytes, what is read is what was written, and a replay sends just that."""

import asyncio
import re
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import pytest

from simulator.recording import BadRecording, Recording, record, replay
from simulator.scenario import Plan
from simulator.sender import BadUrl
from simulator.settings import SimulatorSettings
from simulator.world.relations import ContactChange
from siyu.ops.clock import wall_ms
from siyu.wecom.crypto import CallbackCrypto

CORP_ID = "wx5823bf96d3bd56c7"
START_S = 1_760_000_000
COUNT = 300


def story(open_ended: bool = False, animate=None):
    def plan(start_s: int) -> Plan:
        return Plan(
            scenario="test",
            seed=1,
            corps=(CORP_ID,),
            staff={CORP_ID: ("s1",)},
            customers={CORP_ID: frozenset(f"wm{n}" for n in range(COUNT))},
            contacts=tuple(
                ContactChange(start_s + n // 10, CORP_ID, "s1", f"wm{n}", "add", "store", True) for n in range(COUNT)
            ),
            others=(),
            bills=(),
            open_ended=open_ended,
            **({"animate": animate} if animate else {}),
        )

    return plan


def made(path, apps, *, seed: int = 1, **asked):
    settings = SimulatorSettings(seed=seed)
    return record(path, settings=settings, plan=asked.pop("plan", story()), apps=apps, start_s=START_S, **asked)


def opened(app, query: str, body: bytes) -> bytes:
    given = {name: values[0] for name, values in parse_qs(query).items()}
    found = re.search(rb"CDATA\[([A-Za-z0-9+/=]{64,})\]|\"encrypt\": \"([^\"]+)\"", body)
    assert found is not None
    encrypted = (found[1] or found[2]).decode()
    crypto = CallbackCrypto(app.callback_token, app.callback_aes_key, app.corp_id)
    return crypto.decrypt(given["msg_signature"], given["timestamp"], given["nonce"], encrypted)


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path, app):
    apps = [app("http://r/callback")]
    first = made(tmp_path / "a", apps)
    made(tmp_path / "b", apps)
    made(tmp_path / "c", apps, seed=2)
    assert first.deliveries == COUNT
    assert first.file_bytes == (tmp_path / "a").stat().st_size
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.covers("fact:6.1")
def test_every_callback_is_in_it_once_for_each_app_in_order_of_time(tmp_path, app):
    """1.3: what is recorded is a whole delivery: query with signature, timestamp and nonce, and the envelope."""
    apps = [
        app("http://r/callback?own=1", token="another"),
        app("http://r/pay?callback_format=json", agent_id="1000003"),
        app("http://r/tags", agent_id="1000004", events=frozenset({"change_external_tag"})),
        app("http://r/other", corp_id="wwother"),
        app(""),
    ]
    assert made(tmp_path / "file", apps).deliveries == 2 * COUNT
    recording = Recording(tmp_path / "file")
    assert [e.path for e in recording.endpoints] == ["/callback?own=1", "/pay?callback_format=json", "/tags", "/other"]
    assert [e.json for e in recording.endpoints] == [False, True, False, False]
    deliveries = list(recording)
    assert Counter(d.endpoint for d in deliveries) == {0: COUNT, 1: COUNT}
    messages = [opened(apps[d.endpoint], d.query, d.body) for d in deliveries]
    assert messages[::2] == messages[1::2]
    times = [int(re.search(rb"<CreateTime>(\d+)", message)[1]) for message in messages]
    assert times == sorted(times)
    assert [parse_qs(d.query)["timestamp"] for d in deliveries] == [[str(time)] for time in times]
    assert len({d.query for d in deliveries}) == 2 * COUNT
    assert list(recording) == deliveries, "it can be read twice"


def test_a_limit_ends_a_recording(tmp_path, app):
    assert made(tmp_path / "file", [app("http://r/")], at_most=17).deliveries == 17
    assert made(tmp_path / "file", [app("http://r/")], seconds=9).deliveries == 90
    assert len(list(Recording(tmp_path / "file"))) == 90


def test_a_world_without_end_needs_a_limit_and_goes_on_by_itself(tmp_path, app):
    def animate(corps):
        corp = corps[CORP_ID]

        def tick(now_s: int) -> None:
            corp.emit(now_s, [("Event", "change_external_tag"), ("Id", str(now_s))])
            corp.schedule.at(now_s + 1, tick)

        corp.schedule.at(START_S, tick)

    plan = story(open_ended=True, animate=animate)
    with pytest.raises(ValueError, match="no end"):
        made(tmp_path / "file", [app("http://r/")], plan=plan)
    assert list(tmp_path.iterdir()) == []
    assert made(tmp_path / "file", [app("http://r/")], plan=plan, at_most=1_000).deliveries == 1_000
    assert made(tmp_path / "file", [app("http://r/")], plan=plan, seconds=60).deliveries == COUNT + 60


async def test_a_replay_sends_what_was_recorded_at_the_rate_that_was_asked_for(tmp_path, app, wire):
    apps = [app("http://elsewhere/callback?own=1"), app("http://elsewhere/pay?callback_format=json", agent_id="2")]
    made(tmp_path / "file", apps, at_most=200)
    done = await asyncio.to_thread(replay, tmp_path / "file", f"{wire.url}/base/", rate=400.0, connections=4)
    assert (done.sent, done.results) == (200, {"200": 200})
    assert wire.connections <= 4
    assert done.seconds > 0.4, "an open loop is never ahead of its rate"
    sent = {(urlsplit(r.line.split(" ")[1]).path, urlsplit(r.line.split(" ")[1]).query, r.body) for r in wire.requests}
    paths = {0: ("/base/callback", "own=1&"), 1: ("/base/pay", "callback_format=json&")}
    assert sent == {
        (paths[d.endpoint][0], paths[d.endpoint][1] + d.query, d.body) for d in Recording(tmp_path / "file")
    }
    assert {r.header("Content-Type") for r in wire.requests if "/pay" in r.line} == {"application/json"}
    assert 0 <= done.p50_ms <= done.p99_ms <= done.slowest_ms


async def test_statuses_and_failures_are_counted_and_nothing_is_sent_twice(tmp_path, app, wire):
    made(tmp_path / "file", [app("http://r/")], at_most=30)
    wire.answer = lambda _: b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    done = await asyncio.to_thread(replay, tmp_path / "file", wire.url, connections=2)
    assert (done.results, len(wire.requests)) == ({"503": 30}, 30)
    done = await asyncio.to_thread(replay, tmp_path / "file", "http://127.0.0.1:1", connections=2, at_most=5)
    assert done.results == {"unreachable": 5}


async def test_a_slow_receiver_shows_in_the_latency_and_not_in_the_rate(tmp_path, app, wire):
    made(tmp_path / "file", [app("http://r/")], at_most=40)

    async def slowly(_):
        await asyncio.sleep(0.05)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    wire.answer = slowly
    done = await asyncio.to_thread(replay, tmp_path / "file", wire.url, rate=1_000.0, connections=2)
    assert done.results == {"200": 40}
    # Two at a time, 50 ms each: the last was due after 40 ms and begun after 950.
    assert done.behind_ms > 500
    assert done.p99_ms > 500, "waiting in line counts"


@pytest.mark.covers("fact:6.1")
async def test_a_fresh_replay_has_timestamps_of_now_around_the_same_messages(tmp_path, app, wire):
    """1.4: a receiver may refuse what is plainly old, so a recording can be sealed anew while it is sent."""
    apps = [app("http://r/callback"), app("http://r/pay?callback_format=json", agent_id="1000003")]
    made(tmp_path / "file", apps, at_most=60)
    before_s = wall_ms() // 1000
    done = await asyncio.to_thread(replay, tmp_path / "file", wire.url, fresh=apps)
    assert done.results == {"200": 60}
    messages = Counter()
    for request in wire.requests:
        url = urlsplit(request.line.split(" ")[1])
        assert int(parse_qs(url.query)["timestamp"][0]) >= before_s
        messages[opened(apps[url.path == "/pay"], url.query, request.body)] += 1
    assert messages == Counter(opened(apps[d.endpoint], d.query, d.body) for d in Recording(tmp_path / "file"))


def test_fresh_needs_the_keys_it_was_recorded_with(tmp_path, app):
    made(tmp_path / "file", [app("http://r/")], at_most=3)
    with pytest.raises(BadRecording, match="no keys for app 1000002"):
        replay(tmp_path / "file", "http://127.0.0.1:1", fresh=[app("http://r/", agent_id="9")])
    with pytest.raises(BadRecording, match="other keys"):
        replay(tmp_path / "file", "http://127.0.0.1:1", fresh=[app("http://r/", token="another")])
    with pytest.raises(BadUrl):
        replay(tmp_path / "file", "127.0.0.1")


def test_what_is_no_recording_is_said_and_never_sent(tmp_path, app):
    path = tmp_path / "file"
    made(path, [app("http://r/")], at_most=3)
    whole = path.read_bytes()
    for content in (b"", b"SIYU", b"SIYU-CALLBACKS 1\n", b"SIYU-CALLBACKS 1\n\x00\x00\x00\x02{}", b"x" * 1_000):
        path.write_bytes(content)
        with pytest.raises(BadRecording):
            Recording(path)
    head = len(b"SIYU-CALLBACKS 1\n") + 4 + int.from_bytes(whole[17:21])
    for end in range(head + 1, len(whole), 97):
        path.write_bytes(whole[:end])
        try:
            found = len(list(Recording(path)))
        except BadRecording as error:
            said = str(error)
        else:
            assert found < 3
            continue
        assert "ends in the middle" in said
    path.write_bytes(whole + b"\x00\x00\x00\x06\x00\x09\x00\x01a?")
    with pytest.raises(BadRecording, match="makes no sense"):
        list(Recording(path))
    with pytest.raises(BadRecording, match="makes no sense"):
        replay(path, "http://127.0.0.1:1", connections=2)
