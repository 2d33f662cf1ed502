"""Whom a callback goes to, when, how often, and when never: with a clock that the tests move."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable

import pytest

from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.sender import Answer, Target
from simulator.world.corp import Callback
from siyu.wecom.crypto import CallbackCrypto

CORP_ID = "wx5823bf96d3bd56c7"


class Network:
    """Takes what is posted: (url, message) in order."""

    def __init__(
        self, keys: dict[str, CallbackCrypto], answer: Callable[[str], Answer] = lambda _: Answer(200)
    ) -> None:
        self.keys = keys
        self.answer = answer
        self.posts: list[tuple[str, bytes]] = []
        self.timeouts: set[float] = set()
        self.under_way = self.most_under_way = 0

    async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.timeouts.add(timeout_s)
        given = dict(part.split("=") for part in query.split("&"))
        found = re.search(rb"<Encrypt><!\[CDATA\[(.*?)\]\]>", body)
        encrypted = found[1].decode() if found else json.loads(body)["encrypt"]
        message = self.keys[target.url].decrypt(given["msg_signature"], given["timestamp"], given["nonce"], encrypted)
        self.posts.append((target.url, message))
        await asyncio.sleep(0)
        self.under_way -= 1
        return self.answer(target.url)

    async def close(self) -> None:
        pass


class Hand:
    """Seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.s = 1_760_000_000.0

    def __call__(self) -> float:
        return self.s


class Rig:
    def __init__(self, *apps, answer: Callable[[str], Answer] = lambda _: Answer(200), **policy) -> None:
        self.clock = Hand()
        keys = {a.callback_url: CallbackCrypto(a.callback_token, a.callback_aes_key, a.corp_id) for a in apps}
        self.network = Network(keys, answer)
        made = {"shuffle_s": 0.0, "duplicate_share": 0.0, **policy}
        self.deliverer = Deliverer(
            apps=apps,
            policy=DeliveryPolicy(**made),
            metrics=SimulatorMetrics(),
            sender=self.network,
            clock_s=self.clock,
        )

    @property
    def counts(self):
        return self.deliverer.counts

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in self.network.posts]

    def send(self, content: bytes, event: str = "change_external_contact", **fields) -> None:
        self.deliverer.send(Callback(fields.pop("corp_id", CORP_ID), event, content, **fields))

    async def rest(self) -> None:
        """Until everything that is due has been sent: a few looks at the clock."""
        before = -1
        while before != self.counts.attempts:
            before = self.counts.attempts
            await asyncio.sleep(0.06)

    async def move(self, seconds: float) -> None:
        self.clock.s += seconds
        await self.rest()


@pytest.mark.covers("fact:6.1")
async def test_every_qualifying_app_gets_a_copy_sealed_with_its_own_keys(app):
    """1.1: every qualifying app gets its own copy of each event, with its own URL, token, key and AgentID."""
    first = app("http://one/callback")
    second = app(
        "http://two/callback", agent_id="1000003", token="other", key="4Ma3YBrSBbX2aez8MJpXGBne5LSDwgGqHbhM9WPYIws"
    )
    rig = Rig(first, second)
    rig.send(b"<xml/>")
    await rig.rest()
    assert sorted(rig.network.posts) == [("http://one/callback", b"<xml/>"), ("http://two/callback", b"<xml/>")]
    assert (rig.counts.submitted, rig.counts.delivered) == (2, 2)


@pytest.mark.covers("fact:6.1")
async def test_an_app_is_told_only_what_it_subscribed_to_and_what_is_its_corps(app):
    """1.1: only subscribed events arrive; some events are one app's alone (2.8)."""
    tags = app("http://tags/", agent_id="1", events=frozenset({"change_external_tag"}))
    everything = app("http://all/", agent_id="2")
    silent = app("", agent_id="3")
    elsewhere = app("http://other/", corp_id="wwother", agent_id="2")
    rig = Rig(tags, everything, silent, elsewhere)
    rig.send(b"contact")
    rig.send(b"tag", "change_external_tag")
    rig.send(b"card", "template_card_event", only_agent="2")
    rig.send(b"stranger", corp_id="wwnobody")
    await rig.rest()
    assert sorted(rig.network.posts) == [
        ("http://all/", b"card"),
        ("http://all/", b"contact"),
        ("http://all/", b"tag"),
        ("http://tags/", b"tag"),
    ]


async def test_the_address_book_is_told_to_those_who_named_it(app):
    """2.7: change_contact goes to the address book's assistant, not to ordinary self-built apps."""
    rig = Rig(app("http://app/"), app("http://book/", agent_id="2", events=frozenset({"change_contact"})))
    rig.send(b"left", "change_contact")
    await rig.rest()
    assert rig.network.posts == [("http://book/", b"left")]


@pytest.mark.covers("fact:6.2", "fact:6.21")
async def test_retries_follow_the_clock_and_the_time_limit_does_not(app):
    """1.7: the spacing of retries is undocumented, hence a setting in the clock's time; the 5 s are wall time."""
    rig = Rig(app("http://r/"), answer=lambda _: Answer(500), retry_s=(60.0, 3_600.0), total=4)
    rig.send(b"<xml/>")
    await rig.rest()
    assert len(rig.network.posts) == 1
    for seconds, posts in ((59, 1), (1, 2), (3_599, 2), (1, 3), (3_599, 3), (1, 4), (86_400, 4)):
        await rig.move(seconds)
        assert len(rig.network.posts) == posts, seconds
    assert rig.network.timeouts == {5.0}
    assert rig.deliverer.idle
    assert rig.counts.dropped == 1


@pytest.mark.covers("fact:6.2")
async def test_order_is_lost(app):
    """1.7: events may come out of order."""
    rig = Rig(app("http://r/"), shuffle_s=10.0)
    sent = [b"%03d" % n for n in range(200)]
    for message in sent:
        rig.send(message)
    await rig.rest()
    assert len(rig.messages) < 5, "the clock stands still"
    await rig.move(5)
    assert 60 < len(rig.messages) < 140
    await rig.move(5)
    assert sorted(rig.messages) == sent
    assert rig.messages != sent


@pytest.mark.covers("fact:6.2")
async def test_bursts_hold_callbacks_back_and_release_them_together(app):
    """6.2: bursts: nothing for a while, then everything of that while at once."""
    rig = Rig(app("http://r/"), burst_s=30.0)
    rig.clock.s = 1_760_000_015.0
    for n in range(20):
        rig.send(b"%d" % n)
        await rig.move(0.5)
    await rig.rest()
    assert rig.messages == []
    await rig.move(15)
    assert len(rig.messages) == 20


@pytest.mark.covers("fact:6.2")
async def test_a_share_is_lost_without_a_trace_and_counted(app):
    """1.7: delivery is not guaranteed: what is lost is never sent, and only the simulator's own counts tell."""
    messages = [b"<xml>%d</xml>" % n for n in range(4_000)]

    async def lost(order: list[bytes], seed: int) -> set[bytes]:
        rig = Rig(app("http://r/"), lost_share=0.01, seed=seed)
        for message in order:
            rig.send(message)
        await asyncio.wait_for(rig.deliverer.wait_idle(), 60)
        missing = set(order) - set(rig.messages)
        counts = rig.counts
        assert (counts.lost, counts.dropped, counts.delivered) == (len(missing), len(missing), 4_000 - len(missing))
        return missing

    first = await lost(messages, 1)
    assert 20 < len(first) < 70
    assert await lost(messages[::-1], 1) == first, "which ones does not depend on their order"
    assert await lost(messages, 2) != first


@pytest.mark.covers("fact:6.2")
async def test_an_endpoint_that_fails_too_often_is_given_up_for_a_while(app):
    """1.7: WeCom may drop events when the endpoint fails too often: silently, and for a while."""
    healthy: set[str] = {"http://good/"}
    rig = Rig(
        app("http://bad/"),
        app("http://good/", agent_id="1000003"),
        answer=lambda url: Answer(200) if url in healthy else Answer(0, failure="timeout"),
        mute_after=4,
        mute_window_s=60.0,
        mute_s=600.0,
        retry_s=(10.0,),
    )

    def bad() -> int:
        return sum(url == "http://bad/" for url, _ in rig.network.posts)

    rig.send(b"1")
    rig.send(b"2")
    await rig.rest()
    await rig.move(10)
    assert bad() == 4
    await rig.move(10)
    assert bad() == 4, "the third deliveries are due and dropped"
    assert (rig.counts.muted, rig.counts.dropped) == (2, 2)
    rig.send(b"3")
    await rig.rest()
    assert bad() == 4
    assert rig.counts.muted == 3
    healthy.add("http://bad/")
    await rig.move(600)
    rig.send(b"4")
    await rig.rest()
    assert ("http://bad/", b"4") in rig.network.posts
    assert Counter(url for url, _ in rig.network.posts)["http://good/"] == 4, "another app's endpoint has its own fate"
    assert rig.deliverer.idle
    assert rig.counts.waiting == 0


@pytest.mark.covers("fact:6.2")
async def test_failures_that_lie_apart_give_no_endpoint_up(app):
    """1.7: "too often" is a number within a time; both are settings because neither is documented."""
    rig = Rig(app("http://r/"), answer=lambda _: Answer(500), mute_after=3, mute_window_s=60.0, total=1)
    for n in range(6):
        rig.send(b"%d" % n)
        await rig.move(31)
    assert len(rig.network.posts) == 6
    assert rig.counts.muted == 0


@pytest.mark.covers("fact:6.1")
async def test_json_envelopes_where_the_url_asks_for_them(app):
    """1.3: ``callback_format=json`` makes the envelope JSON with lower-case keys; the message inside stays XML."""
    url = "http://r/pay?callback_format=json"
    bodies: list[tuple[str, bytes]] = []
    rig = Rig(app(url))
    post = rig.network.post

    async def noting(target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
        bodies.append((target.post(query, body).decode(), body))
        return await post(target, query, body, timeout_s=timeout_s)

    rig.network.post = noting
    for n in range(20):
        rig.send(b"<xml>%d</xml>" % n)
    await rig.rest()
    assert len(rig.messages) == 20
    for request, body in bodies:
        fields = json.loads(body)
        assert set(fields) == {"tousername", "encrypt", "agentid"}
        assert (fields["tousername"], fields["agentid"]) == (CORP_ID, "1000002")
        assert request.startswith("POST /pay?callback_format=json&msg_signature=")
        assert "Content-Type: application/json\r\n" in request


async def test_what_waits_is_neither_tasks_nor_timers(app):
    rig = Rig(app("http://r/"), shuffle_s=1_000.0, duplicate_share=0.1, duplicate_within_s=100.0, concurrency=8)
    tasks = len(asyncio.all_tasks())
    for n in range(30_000):
        rig.send(b"<xml>%d</xml>" % n)
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) <= tasks + 8
    assert rig.counts.waiting > 29_000
    rig.clock.s += 2_000
    await asyncio.wait_for(rig.deliverer.wait_idle(), 60)
    assert rig.network.most_under_way <= 8
    assert rig.counts.delivered == 30_000
    assert rig.counts.attempts == 30_000 + rig.counts.duplicates


async def test_closing_leaves_what_waits_undelivered(app):
    rig = Rig(app("http://r/"), shuffle_s=1_000.0)
    for n in range(100):
        rig.send(b"%d" % n)
    await rig.rest()
    await rig.deliverer.close()
    posts = len(rig.network.posts)
    await rig.move(2_000)
    assert len(rig.network.posts) == posts


async def test_the_journal_tells_what_became_of_each(app):
    rig = Rig(app("http://r/"), answer=lambda _: Answer(500), total=2, retry_s=(10.0,))
    rig.send(b"<xml><ChangeType><![CDATA[add_external_contact]]></ChangeType></xml>")
    await rig.rest()
    (entry,) = rig.deliverer.journal.newest_first()
    assert (entry.event, entry.change_type) == ("change_external_contact", "add_external_contact")
    assert (entry.attempts, entry.result) == (1, "refused")
    await rig.move(10)
    assert (entry.attempts, entry.result) == (2, "dropped")


@pytest.mark.covers("fact:6.2")
async def test_what_reached_no_app_at_all_is_remembered(app):
    """1.7: the truth can say what no receiver has heard; what one of two apps took is not among it."""
    lucky: set[str] = {"http://b/"}
    rig = Rig(
        app("http://a/"),
        app("http://b/", agent_id="1000003"),
        answer=lambda url: Answer(200 if url in lucky else 500),
        total=1,
    )
    rig.send(b"one of two")
    await rig.rest()
    assert (rig.counts.dropped, rig.deliverer.undelivered) == (1, [])
    lucky.clear()
    rig.send(b"nobody")
    await rig.rest()
    assert [callback.content for callback in rig.deliverer.undelivered] == [b"nobody"]
    rig.deliverer.lost_share = 1.0
    rig.send(b"lost")
    assert [callback.content for callback in rig.deliverer.undelivered] == [b"nobody", b"lost"]
