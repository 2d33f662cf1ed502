"""Whatever lies in a lane: an outcome with the reason each, or a dead letter, and the partition goes on."""

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from crew import REMARK, TAG, Crew, Platform, crew_on, now_ms, remark
from executor_process import Topics, eventually

from deploy.local.kafka import LocalKafka
from services.executor.membership import shard_of
from siyu.events import codec
from siyu.events.ids import stable_id
from siyu.ops.dlq import headers_of
from siyu.wecom.endpoints import quota_scope

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LANES = ("welcome", "urgent", "bulk", "sync")
Together = tuple[Platform, Crew]


@pytest.fixture(scope="module")
def together(own_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    with crew_on(own_kafka.bootstrap, tmp_path_factory.mktemp("crew")) as both:
        both[1].start("e1", "e2")
        yield both


async def test_every_action_that_cannot_be_carried_out_ends_with_its_reason_and_without_a_call(
    together: Together, topics: Topics
) -> None:
    platform, crew = together
    await crew.working()
    day_ms = 86_400_000
    wrong = {
        "no-object": (remark("bad-no-object", payload=b"[1, 2]"), "rejected", "payload_malformed"),
        "no-json": (remark("bad-no-json", payload=b"\xff\xfe"), "rejected", "payload_malformed"),
        "empty": (remark("bad-empty", payload=b""), "rejected", "payload_malformed"),
        "large": (
            remark("bad-large", payload=json.dumps({"remark": "x" * 6_400_000}).encode()),
            "rejected",
            "payload_too_large",
        ),
        "endpoint": (
            remark("bad-endpoint", endpoint="externalcontact/del_external_contact"),
            "rejected",
            "endpoint_not_allowed",
        ),
        "no-endpoint": (remark("bad-no-endpoint", endpoint=""), "rejected", "endpoint_not_allowed"),
        "corp": (remark("bad-corp", corp_id="ww-nobody"), "rejected", "corp_unknown"),
        "no-corp": (remark("bad-no-corp", corp_id=""), "rejected", "corp_unknown"),
        "odd-corp": (remark("bad-odd-corp", corp_id="ww1|remark"), "rejected", "corp_unknown"),
        "late": (remark("bad-late", deadline_ms=now_ms() - 1), "expired", "deadline_passed"),
        "before-time": (remark("bad-before-time", deadline_ms=-5), "expired", "deadline_passed"),
        "never": (
            remark("bad-never", not_before_ms=now_ms() + 120_000, deadline_ms=now_ms() + 100_000),
            "rejected",
            "contradictory",
        ),
        "never-in-days": (
            remark("bad-never-in-days", not_before_ms=now_ms() + 2 * day_ms, deadline_ms=now_ms() + day_ms),
            "rejected",
            "contradictory",
        ),
    }
    fine = {
        "far": remark("bad-fine-far", deadline_ms=1 << 62),
        "past": remark("bad-fine-past", not_before_ms=-(1 << 62)),
        "odd": remark("bad-fine-\u0000 | ☃" + "x" * 5000),
        "nobody": remark("bad-fine-nobody", subject="", staff_id="", reason="", caused_by=""),
    }
    topics.send(*(given for given, _, _ in wrong.values()), *fine.values())
    outcomes = await topics.until_outcomes("bad-", len(wrong) + len(fine), crew.log)
    found = {outcome.action_id: (outcome.status, outcome.detail, outcome.calls) for outcome in outcomes}
    assert len(found) == len(outcomes)
    assert found == {given.action_id: (status, detail, 0) for given, status, detail in wrong.values()} | {
        given.action_id: ("done", "ok", 1) for given in fine.values()
    }
    called = Counter(platform.customers(REMARK))
    assert called == Counter({given.customer_id: 1 for given in fine.values()})


async def test_an_action_in_a_lane_that_is_not_its_own_is_refused(together: Together, topics: Topics) -> None:
    _, crew = together
    await crew.working()
    stray = remark("lane-stray", lane="urgent")
    topics.send_event("actions.bulk", quota_scope("ww1", REMARK), stray)
    (outcome,) = await topics.until_outcomes("lane-stray", 1, crew.log)
    assert (outcome.status, outcome.detail, outcome.calls) == ("rejected", "contradictory", 0)


async def test_the_same_action_again_is_told_as_a_repeat_and_called_once(together: Together, topics: Topics) -> None:
    platform, crew = together
    await crew.working()
    given = remark("twin-1")
    other = remark("twin-1", customer_id="somebody-else")
    topics.send(given, given)
    await topics.until_outcomes("twin-1", 1, crew.log)
    topics.send(given, other, remark("twin-last"))
    await topics.until_outcomes("twin-last", 1, crew.log)
    outcomes = [o for o in topics.outcomes("") if "twin-1" in (o.action_id, o.parent_id)]
    assert Counter((o.status, o.detail, o.parent_id) for o in outcomes) == Counter(
        {
            ("done", "ok", ""): 1,
            ("rejected", "duplicate", "twin-1"): 2,
            ("rejected", "contradictory", "twin-1"): 1,
        }
    )
    assert len({outcome.action_id for outcome in outcomes}) == 4
    assert platform.customers(REMARK).count("customer-twin-1") == 1


async def test_the_same_action_again_while_the_first_waits_is_a_repeat_too(together: Together, topics: Topics) -> None:
    platform, crew = together
    await crew.working()
    soon = remark("wait-1", not_before_ms=now_ms() + 1500)
    days = remark("park-1", not_before_ms=now_ms() + 5 * 86_400_000)
    topics.send(soon, soon, days, days)
    await topics.until_outcomes("wait-1", 1, crew.log)

    def repeats() -> Counter[tuple[str, str]]:
        return Counter((o.parent_id, o.detail) for o in topics.outcomes("") if o.parent_id in ("wait-1", "park-1"))

    await eventually(lambda: repeats() == Counter({("wait-1", "duplicate"): 1, ("park-1", "duplicate"): 1}), crew.log)
    assert platform.customers(REMARK).count("customer-wait-1") == 1


async def test_an_action_under_another_key_finds_its_owner_and_is_called_once(
    together: Together, topics: Topics
) -> None:
    platform, crew = together
    await crew.working()
    home = shard_of(quota_scope("ww1", REMARK), 4)
    keys = [f"key-{n}" for n in range(40) if shard_of(f"key-{n}", 4) != home][:10]
    astray = [remark(f"astray-{n}") for n in range(len(keys))]
    for key, given in zip(keys, astray, strict=True):
        topics.send_event("actions.urgent", key, given)
    outcomes = await topics.until_outcomes("astray", len(astray), crew.log)
    assert Counter(o.action_id for o in outcomes) == Counter({given.action_id: 1 for given in astray})
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert Counter(n for n in platform.customers(REMARK) if "astray" in n) == Counter(
        {a.customer_id: 1 for a in astray}
    )
    assert sum(member.metric("siyu_executor_rerouted_total") for member in crew.members.values()) == len(astray)


async def test_what_cannot_be_read_is_kept_has_an_outcome_and_holds_nobody_up(
    together: Together, topics: Topics
) -> None:
    _, crew = together
    await crew.working()
    good = codec().encode(remark("poison-inner"))
    poison = [b"", b"no avro", b"\x00\x00\x00\x00\x63junk", good[:-3], good + b"\x00", b"\x00" * 100_000]
    key = quota_scope("ww1", TAG).encode()
    for lane in LANES:
        for value in poison:
            topics.send_raw(f"actions.{lane}", key, value)
        topics.send_raw(f"actions.{lane}", key, None)
        topics.send_raw(f"actions.{lane}", b"\xff\xfe|\xff", b"under an odd key")
        topics.send(remark(f"poison-after-{lane}", lane=lane, endpoint=TAG))
    await topics.until_outcomes("poison-after", len(LANES), crew.log)
    count = len(LANES) * (len(poison) + 2)
    deadline = time.monotonic() + 60
    while len(topics.read("dlq.executor")) < count:
        assert time.monotonic() < deadline, crew.log()
    letters = topics.read("dlq.executor")
    told = Counter(o.action_id for o in topics.outcomes("") if o.detail == "malformed")
    origins = [headers_of(letter) for letter in letters]
    places = {(at["origin.topic"], int(at["origin.partition"]), int(at["origin.offset"])) for at in origins}
    assert len(places) == len(letters) == count
    assert told == Counter({stable_id("record", *place): 1 for place in places})
    assert sum(member.metric("siyu_executor_dead_letters_total") for member in crew.members.values()) == count


async def test_what_is_larger_than_any_record_of_ours_holds_nobody_up(together: Together, topics: Topics) -> None:
    """A broker counts compressed bytes: 30 MB of one letter pass it, and could not be written again."""
    platform, crew = together
    await crew.working()
    blank = b" " * 30_000_000
    large = [
        remark("vast-payload", payload=blank),
        remark("vast-endpoint", payload=blank, endpoint="externalcontact/del_external_contact"),
        remark("vast-parked", payload=blank, not_before_ms=now_ms() + 2 * 86_400_000),
        remark("vast-stray", payload=blank, lane="sync"),
    ]
    topics.send(*large)
    topics.send_event("actions.urgent", "astray", remark("vast-astray", payload=blank))
    before = len(topics.read("dlq.executor"))
    topics.send(remark("no-one", customer_id="x" * 5_000_000, staff_id="y" * 5_000_000))
    topics.send_raw("actions.urgent", quota_scope("ww1", REMARK).encode(), b"?" * 30_000_000)
    topics.send(remark("vast-after"))
    outcomes = await topics.until_outcomes("vast", 6, crew.log)
    assert {o.action_id: (o.status, o.detail) for o in outcomes if o.status != "done"} == {
        f"vast-{name}": ("rejected", "payload_too_large")
        for name in ("payload", "endpoint", "parked", "stray", "astray")
    }
    assert {outcome.request for outcome in outcomes if outcome.status != "done"} == {b""}
    assert "customer-vast-after" in platform.customers(REMARK)
    await eventually(lambda: len(topics.read("dlq.executor")) == before + 2, crew.log)


async def test_afterwards_nothing_is_stuck(together: Together, topics: Topics, own_kafka: LocalKafka) -> None:
    _, crew = together
    await crew.working()
    # One good action of every lane and shard, behind all that came before.
    corps = {shard_of(quota_scope(f"ww{n}", REMARK), 4): f"ww{n}" for n in range(1, 9)}
    last = [remark(f"last-{lane}-{corp}", lane=lane, corp_id=corp) for lane in LANES for corp in corps.values()]
    assert len(last) == 16
    topics.send(*last)
    outcomes = await topics.until_outcomes("last", len(last), crew.log)
    assert {outcome.status for outcome in outcomes} == {"done"}
    places = [TopicPartition(f"actions.{lane}", shard) for lane in LANES for shard in range(4)]
    newest = {
        (f"actions.{lane}", m.partition()): m.offset() or 0 for lane in LANES for m in topics.read(f"actions.{lane}")
    }
    consumer = Consumer({"bootstrap.servers": own_kafka.bootstrap, "group.id": "executor"})

    def all_committed() -> bool:
        committed = {(p.topic, p.partition): p.offset for p in consumer.committed(places, timeout=10)}
        return all(committed[topic, number or 0] > offset for (topic, number), offset in newest.items())

    try:
        await eventually(all_committed, crew.log)
    finally:
        consumer.close()
