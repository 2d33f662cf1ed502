"""Actions for an executor to work off, who they are about, and what became of them."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from benchmarks.harness.broker import Cluster
from benchmarks.harness.executors import Site, ask
from benchmarks.harness.verdict import MASS_MESSAGE
from siyu.events import Action, ActionOutcome, Lane, codec
from siyu.events.ids import customer_key, staff_key
from siyu.ops.clock import FileClock
from siyu.ops.corps import load_corps
from siyu.wecom.endpoints import quota_scope

TAG = "externalcontact/mark_tag"
GET = "externalcontact/get"
_PAGE = 10_000
_FLUSH_S = 60.0
_QUEUE = 200_000


def scenario(*, staff: int, customers: int, adds_per_second: float = 0.0, **platform: Any) -> dict[str, Any]:
    """A world whose people stay who they are; some add staff, when asked for, and wait for their welcome."""
    pace = 86_400 * adds_per_second / staff if adds_per_second else 1.0
    quiet = dict.fromkeys(
        (
            "deleted_by_customer_per_1000",
            "deleted_by_staff_per_1000",
            "edits_per_staff",
            "chats_per_staff",
            "group_joins",
            "group_quits",
            "code_scans",
            "link_visits",
            "join_way_scans",
            "complaints_per_million",
            "leavers_per_1000",
            "half_share",
            "from_known_share",
            "from_groups_share",
        ),
        0,
    )
    made: dict[str, Any] = {
        "about": "Bench.",
        "population": {
            "staff": staff,
            "customers": customers,
            "newcomers": max(1, round(3_600 * adds_per_second)),
            "second_share": 0.0,
            "third_share": 0.0,
        },
        "channels": [{"kind": "live_code", "share": 1.0, "state": "store-{store:05d}", "welcome": 1.0}],
        "tags": {"level": ["plain", "silver", "gold", "black"], "liking": ["tea", "milk", "rice", "oil"]},
        "shopping": {"buyers_share": 0.0, "stranger_share": 0.0},
        "story": {**quiet, "duration_s": 0, "pace": pace, "adds_per_staff": 1.0 if adds_per_second else 0.0},
    }
    if platform:
        made["platform"] = platform
    return made


@dataclass
class People:
    """Who is there, and the tags that can be put on them."""

    pairs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """By corp: (staff, customer) who are friends."""
    tags: dict[str, list[str]] = field(default_factory=dict)
    """By corp."""


def people_of(site: Site, most: int) -> People:
    """Up to so many pairs of each corp, as the platform has them now."""
    found = People()
    for corp in load_corps(site.folder / "corps.yaml").values():
        pairs: list[tuple[str, str]] = []
        offset: int | None = 0
        while offset is not None and len(pairs) < most:
            page = site.see("truth/standing", corp=corp.corp_id, offset=offset, limit=_PAGE)
            pairs += [(row["staff_id"], row["customer_id"]) for row in page["rows"]]
            offset = page["next_offset"]
        found.pairs[corp.corp_id] = pairs[:most]
        given = ask(f"{site.base_url}/cgi-bin/gettoken", corpid=corp.corp_id, corpsecret=corp.secret)
        path = f"{site.base_url}/cgi-bin/externalcontact/get_corp_tag_list?access_token={given['access_token']}"
        groups = ask(path, {})["tag_group"]
        found.tags[corp.corp_id] = [tag["id"] for group in groups for tag in group["tag"]]
    return found


def action(
    number: int, lane: Lane, corp_id: str, endpoint: str, payload: dict[str, Any], *, now_ms: int, **fields: Any
) -> Action:
    """One action; ``fields`` are those of :class:`Action` that are not as in a plain one. ``now_ms``: business time."""
    staff_id, customer_id = fields.pop("staff_id", ""), fields.pop("customer_id", "")
    subject = customer_key(corp_id, customer_id) if customer_id else staff_key(corp_id, staff_id)
    plain: dict[str, Any] = {
        "action_id": f"bench-{lane}-{number:08d}",
        "lane": lane,
        "corp_id": corp_id,
        "endpoint": endpoint,
        "subject": subject,
        "staff_id": staff_id,
        "customer_id": customer_id,
        "payload": json.dumps(payload).encode(),
        "reason": "bench@1",
        "caused_by": f"bench-{number}",
        "created_ms": now_ms,
        "not_before_ms": 0,
        "deadline_ms": 0,
        "trigger_received_at_ms": 0,
        "campaign_id": "",
    }
    return Action(**{**plain, **fields})


def tagging(
    people: People, count: int, *, now_ms: int, seed: int = 1, lane: Lane = "bulk", campaigns: int = 50, first: int = 0
) -> Iterator[Action]:
    """So many tag changes, one corp after the other, over all its staff and so many campaigns."""
    chance = random.Random(f"{seed}|{lane}|{first}")
    corps = itertools.cycle(people.pairs)
    for number, corp_id in zip(range(first, first + count), corps, strict=False):
        staff_id, customer_id = chance.choice(people.pairs[corp_id])
        tag = chance.choice(people.tags[corp_id])
        yield action(
            number,
            lane,
            corp_id,
            TAG,
            {"userid": staff_id, "external_userid": customer_id, "add_tag": [tag]},
            now_ms=now_ms,
            staff_id=staff_id,
            customer_id=customer_id,
            campaign_id=f"campaign-{chance.randrange(campaigns):03d}",
        )


def send_to(
    number: int, corp_id: str, customers: Sequence[str], text: str, *, now_ms: int, harvest_until_ms: int
) -> Action:
    """One message to many. ``harvest_until_ms`` (business time): whoever has not had it by then never will."""
    payload = {
        "chat_type": "single",
        "external_userid": list(customers),
        "text": {"content": text},
        "siyu": {"harvest_until_ms": harvest_until_ms},
    }
    return action(number, "bulk", corp_id, MASS_MESSAGE, payload, now_ms=now_ms, campaign_id=f"send-{number}")


def fill(bootstrap: str, actions: Iterable[Action]) -> int:
    """Puts actions into their lanes; each is acknowledged when this returns. Returns how many."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 500_000,
            "enable.idempotence": True,
            "message.max.bytes": 8_388_608,
            "queue.buffering.max.messages": 2 * _QUEUE,
            "log_level": 0,
        }
    )
    encode = codec().encode
    count = 0
    for count, made in enumerate(actions, 1):
        producer.produce(f"actions.{made.lane}", encode(made), quota_scope(made.corp_id, made.endpoint))
        if count % 1_000 == 0:
            producer.poll(0)
            while len(producer) > _QUEUE:
                producer.poll(0.05)
    if producer.flush(_FLUSH_S):
        raise TimeoutError(f"actions not acknowledged within {_FLUSH_S:.0f} s")
    return count


@dataclass
class Outcomes:
    """What is published about actions, by id."""

    published: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(lane, status, detail)."""
    welcome_ms: list[int] = field(default_factory=list)
    """From the callback's arrival to the outcome of a welcome that WeCom accepted, wall time, ascending."""

    @property
    def more_than_one(self) -> int:
        """Actions with more outcomes than one."""
        return sum(count > 1 for count in self.published.values())

    def share_ms(self, share: float) -> int:
        """Of the welcomes."""
        ordered = self.welcome_ms
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0

    def figures(self) -> dict[str, Any]:
        return {
            "actions": len(self.published),
            "more_than_one": self.more_than_one,
            "ends": {" ".join(filter(None, end)): count for end, count in sorted(self.ends.items())},
        }


def outcomes(cluster: Cluster) -> Outcomes:
    """All committed outcomes so far."""
    found = Outcomes()
    decode = codec().decode_as
    for _, value in cluster.read("action.outcomes"):
        assert value is not None
        outcome = decode(ActionOutcome, value)
        found.published[outcome.action_id] += 1
        found.ends[outcome.lane, outcome.status, outcome.detail] += 1
        if outcome.lane == "welcome" and outcome.status == "done" and outcome.trigger_received_at_ms:
            found.welcome_ms.append(outcome.finished_at_ms - outcome.trigger_received_at_ms)
    found.welcome_ms.sort()
    return found


def business_ms(site: Site) -> int:
    """The site's time now."""
    return FileClock(site.clock_file).now_ms()
