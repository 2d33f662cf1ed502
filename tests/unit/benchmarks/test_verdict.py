"""The verdict finds every planted violation, by one call and by one millisecond, and accuses nobody who kept to it."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.verdict import MASS_MESSAGE, BadRecord, Call, Verdict, main, read_calls
from siyu.limits import LimitRegistry, load_registry

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MIDNIGHT = 1_790_006_400_000 // DAY * DAY + 16 * HOUR
"""Of a day in Asia/Shanghai, epoch ms."""
NOON = MIDNIGHT + 12 * HOUR
TAG = "externalcontact/mark_tag"
REMIND = "externalcontact/remind_groupmsg_send"
TASKS = "externalcontact/add_moment_task"
GET = "externalcontact/get"
APP = "message/send"

_ENTRY = {"block": "none", "effective_from": "2020-01-01", "source": "a test", "confidence": "a test"}


def entry(name: str, scope: str, window: str, amount: int, **fields: Any) -> dict[str, Any]:
    return {"id": name, "scope": scope, "window": window, "amount": amount, **_ENTRY, **fields}


LIMITS = [
    entry("corp_minute", "corp_api", "sliding 1 min", 10),
    entry("corp_hour", "corp_api", "sliding 1 h", 30),
    entry("ip_minute", "ip_api", "sliding 1 min", 15),
    entry("at_once", "corp_api", "concurrent", 4),
    entry("staff_minute", "staff_api", "sliding 1 min", 5, endpoints=[TAG, "externalcontact/remark"]),
    entry("reminders", "message_api", "sliding 24 h", 3, endpoints=[REMIND]),
    entry("app_day", "app_api", "calendar day", 6, endpoints=[APP], counts="persons"),
    entry("tasks_month", "corp_api", "calendar month", 5, endpoints=[TASKS]),
    entry("received", "customer_api", "sliding 30 d", 2, endpoints=[GET], enforce="observe"),
]


def registry(folder: Path, limits: Sequence[dict[str, Any]]) -> LimitRegistry:
    dated = {"effective_from": "2020-01-01", "source": "a test", "confidence": "a test"}
    shares = {"welcome": 1.0, "urgent": 0.95, "bulk": 0.8, "sync": 0.8}
    margins = {
        "edge_ms": 1,
        "rate_after_error": 0.5,
        "rate_step": 0.1,
        "rate_step_ms": 1,
        "rate_floor": 0.1,
        "slow_once_per_ms": 1,
        "slow_recovery_ms": 1,
    }
    whole = {"limits": limits, "headroom": [{**dated, **shares}], "margins": [{**dated, **margins}]}
    folder.mkdir(exist_ok=True)
    (folder / "limits.yaml").write_text(json.dumps(whole))  # JSON is YAML
    return load_registry(folder)


@pytest.fixture
def limits(tmp_path: Path) -> LimitRegistry:
    return registry(tmp_path / "limits", LIMITS)


def call(at_ms: int, endpoint: str = GET, **fields: Any) -> Call:
    found: dict[str, Any] = {
        "business_ms": NOON + at_ms,
        "answered_ms": NOON + at_ms + fields.pop("takes_ms", 0),
        "endpoint": endpoint,
        "corp_id": "ww1",
        "agent_id": "1",
        "errcode": 0,
        "ip": "192.0.2.1",
        **fields,
    }
    return Call(**found)


def judged(limits: LimitRegistry, calls: Iterable[Call], grace_ms: int = 0, **options: Any) -> dict[str, Any]:
    verdict = Verdict(limits, grace_ms=grace_ms)
    for one in calls:
        verdict.add(one)
    return verdict.figures(**options)


def row(found: dict[str, Any], limit: str, of: str = "") -> dict[str, Any]:
    rows: list[dict[str, Any]] = found["limits"]
    (only,) = [row for row in rows if row["limit"] == limit and of in ("", row["of"])]
    return only


def over(found: dict[str, Any]) -> dict[str, int]:
    return {row["limit"]: row["over"] for row in found["limits"] if row["over"]}


def test_a_limit_that_is_filled_is_kept(limits: LimitRegistry) -> None:
    found = judged(limits, [call(at) for at in (0, MINUTE, 2 * MINUTE) for _ in range(10)])
    assert found["ok"], found["wrong"]
    assert row(found, "corp_minute")["peak"] == 10
    assert row(found, "corp_hour")["peak"] == 30


def test_one_call_a_millisecond_too_early_is_one_over(limits: LimitRegistry) -> None:
    found = judged(limits, [*(call(0) for _ in range(10)), call(MINUTE - 1)])
    assert over(found) == {"corp_minute": 1}
    assert (found["ok"], found["wrong"], found["over"]) == (False, ["over"], 1)
    assert row(found, "corp_minute")["worst"] == 1


def test_a_window_that_no_clock_cuts_is_found(limits: LimitRegistry) -> None:
    # Six before a full minute and six after it: no minute of the clock holds more than six.
    halves = [call(at) for at in range(MINUTE - 12, MINUTE + 12, 2)]
    assert over(judged(limits, halves)) == {"corp_minute": 2}


def test_an_hour_is_counted_besides_its_minutes(limits: LimitRegistry) -> None:
    calls = [call(minute * MINUTE) for minute in (0, 10, 20, 59) for _ in range(10)]
    found = judged(limits, calls)
    assert over(found) == {"corp_hour": 10}
    assert judged(limits, [*calls[:30], call(HOUR)])["ok"]


def test_corps_and_endpoints_are_counted_apart_and_an_address_over_its_corps(limits: LimitRegistry) -> None:
    calls = [call(n, corp_id=corp) for corp in ("ww1", "ww2") for n in range(8)]
    found = judged(limits, calls)
    assert over(found) == {"ip_minute": 1}
    assert row(found, "corp_minute", "ww1")["peak"] == row(found, "corp_minute", "ww2")["peak"] == 8
    assert judged(limits, [call(n, endpoint) for endpoint in (GET, REMIND) for n in range(8)])["over"] == 0
    assert judged(limits, [call(n, corp_id=corp, ip=corp) for corp in ("ww1", "ww2") for n in range(8)])["over"] == 0


def test_refused_calls_count(limits: LimitRegistry) -> None:
    assert over(judged(limits, [call(n, errcode=45009) for n in range(11)])) == {"corp_minute": 1}
    strangers = [call(n, corp_id="", agent_id="", errcode=40014) for n in range(16)]
    assert over(judged(limits, strangers)) == {"ip_minute": 1}


def test_endpoints_that_a_limit_names_count_together(limits: LimitRegistry) -> None:
    calls = [call(n, endpoint, staff_id="s1") for endpoint in (TAG, "externalcontact/remark") for n in range(3)]
    found = judged(limits, calls)
    assert over(found) == {"staff_minute": 1}
    assert judged(limits, [call(n, TAG, staff_id=f"s{n}") for n in range(10)])["ok"]


def test_people_of_a_limit_are_one_row_without_their_ids(limits: LimitRegistry) -> None:
    calls = [call(n, TAG, staff_id=staff) for staff, times in (("s1", 6), ("s2", 2)) for n in range(times)]
    found = judged(limits, calls)
    assert (row(found, "staff_minute")["counters"], row(found, "staff_minute")["peak"]) == (2, 6)
    assert "s1" not in json.dumps(found)


def test_what_the_record_does_not_attribute_is_said(limits: LimitRegistry) -> None:
    assert judged(limits, [call(0, TAG)])["unattributed"] == {f"staff_api {TAG}": 1}


def test_a_message_has_its_own_counter(limits: LimitRegistry) -> None:
    reminders = [call(n * HOUR, REMIND, message_id=message) for n in range(3) for message in ("m1", "m2")]
    assert judged(limits, reminders)["ok"]
    assert over(judged(limits, [*reminders, call(24 * HOUR - 1, REMIND, message_id="m1")])) == {"reminders": 1}
    assert judged(limits, [*reminders, call(24 * HOUR, REMIND, message_id="m1")])["ok"]


def test_a_natural_day_begins_in_shanghai_and_counts_persons(limits: LimitRegistry) -> None:
    before, after = -12 * HOUR - 1, -12 * HOUR
    kept = [
        call(at, APP, persons=("a", "b", "c"), digest=str(n)) for n, at in enumerate((before, before, after, after))
    ]
    assert judged(limits, kept)["ok"]
    found = judged(limits, [*kept, call(after, APP, persons=("d",), digest="x")])
    assert over(found) == {"app_day": 1}
    assert row(found, "app_day")["peak"] == 7


def test_a_natural_month_is_one_window(limits: LimitRegistry) -> None:
    found = judged(limits, [call(day * DAY // 2, TASKS, digest=str(day)) for day in range(6)])
    assert over(found) == {"tasks_month": 1}
    assert judged(limits, [call(day * 10 * DAY, TASKS, digest=str(day)) for day in range(6)])["ok"]


def test_a_fifth_call_in_flight_is_found_whatever_the_order_of_the_record(limits: LimitRegistry) -> None:
    calls = [call(n, takes_ms=100) for n in range(4)]
    assert judged(limits, calls)["ok"]
    found = judged(limits, [call(99, takes_ms=1), *reversed(calls)])
    assert over(found) == {"at_once": 1}
    assert judged(limits, [*calls, call(100)])["ok"]  # the first was answered in this millisecond


def test_the_count_of_windows_and_flights_is_that_of_the_obvious_way(limits: LimitRegistry) -> None:
    chance = random.Random(7)
    for _ in range(20):
        calls = [call(chance.randrange(2 * MINUTE), takes_ms=chance.randrange(1, 20_000)) for _ in range(60)]
        found = judged(limits, calls)
        at = sorted(c.business_ms for c in calls)
        most = max(sum(t - MINUTE < other <= t for other in at) for t in at)
        assert row(found, "corp_minute")["peak"] == most
        flights = max(sum(o.business_ms <= t < o.answered_ms for o in calls) for t in at)
        assert row(found, "at_once")["peak"] == flights


def test_a_limit_holds_from_its_date_on_and_what_was_used_stays_used(tmp_path: Path) -> None:
    lower = entry("corp_minute", "corp_api", "sliding 1 min", 4, effective_from="2026-09-22T12:00:30+08:00")
    limits = registry(tmp_path / "dated", [*LIMITS, lower])
    change = limits.changes_ms[-1]
    before = [call(change - NOON - 20_000 + n) for n in range(8)]
    assert judged(limits, before)["ok"]
    found = judged(limits, [*before, call(change - NOON)])
    assert over(found) == {"corp_minute": 1}
    assert row(found, "corp_minute")["worst"] == 5
    assert judged(limits, [*before, call(change - NOON - 1)])["ok"]
    assert judged(limits, [*before, call(change - NOON + 50_000)])["ok"]
    # What left before the change may arrive a little after it, when that is asked for.
    assert judged(limits, [*before, call(change - NOON + 999)], grace_ms=1_000)["ok"]
    assert over(judged(limits, [*before, call(change - NOON + 1_000)], grace_ms=1_000)) == {"corp_minute": 1}
    assert judged(limits, [call(change - NOON + n) for n in range(8)], grace_ms=1_000)["ok"]


def test_the_more_specific_limit_holds_instead_of_its_base(tmp_path: Path) -> None:
    more = entry("corp_minute_ww1", "corp_api", "sliding 1 min", 12, corps=["ww1"], overrides="corp_minute")
    limits = registry(tmp_path / "special", [*LIMITS, more])
    assert judged(limits, [call(n) for n in range(12)])["ok"]
    assert over(judged(limits, [call(n) for n in range(13)])) == {"corp_minute_ww1": 1}
    assert over(judged(limits, [call(n, corp_id="ww2") for n in range(11)])) == {"corp_minute": 1}


def test_what_is_only_observed_is_told_and_does_not_condemn(limits: LimitRegistry) -> None:
    found = judged(limits, [call(n, persons=("c1", "c2")) for n in range(3)])
    assert (found["ok"], found["over"], found["observed_over"]) == (True, 0, 2)


def test_the_use_of_a_limit_is_a_share_of_what_it_would_have_admitted(limits: LimitRegistry) -> None:
    calls = [call(minute * MINUTE + n) for minute in range(2) for n in range(8)]
    used = row(judged(limits, calls, begin_ms=NOON, end_ms=NOON + 2 * MINUTE), "corp_minute")
    assert (used["used"], used["used_of_lane"]["bulk"], used["used_of_lane"]["welcome"]) == (0.8, 1.0, 0.8)
    assert used["used_by_window"] == [0.8, 0.8]
    half = row(judged(limits, calls, begin_ms=NOON, end_ms=NOON + 4 * MINUTE), "corp_minute")
    assert (half["used"], half["used_by_window"]) == (0.4, [0.8, 0.8, 0.0, 0.0])


def test_a_window_longer_than_the_run_could_have_been_filled_in_it(limits: LimitRegistry) -> None:
    calls = [call(minute * MINUTE + n) for minute in range(3) for n in range(8)]
    found = judged(limits, calls, begin_ms=NOON, end_ms=NOON + 3 * MINUTE)
    assert row(found, "corp_hour")["used"] == 0.8


def mass(*people: str, **fields: Any) -> Call:
    return call(0, MASS_MESSAGE, persons=people, digest=fields.pop("digest", "|".join(people)), **fields)


def test_everybody_is_in_exactly_one_accepted_request(limits: LimitRegistry) -> None:
    kept = [mass("c1", "c2"), mass("c3"), mass("c4", errcode=-1), mass("c4", digest="again")]
    assert judged(limits, kept, people={"c1", "c2", "c3", "c4"})["ok"]


@pytest.mark.parametrize(
    ("calls", "people", "name"),
    [
        ([mass("c1", "c2"), mass("c2", "c3")], None, "more_than_once"),
        ([mass("c1", "c1")], None, "more_than_once"),
        ([mass("c1")], {"c1", "c2"}, "never"),
        ([mass("c1", errcode=45009)], {"c1"}, "never"),
        ([mass("c1", "c2")], {"c1"}, "unasked"),
    ],
)
def test_who_is_reached_twice_never_or_unasked_is_counted(
    limits: LimitRegistry, calls: list[Call], people: set[str] | None, name: str
) -> None:
    found = judged(limits, calls, people=people)
    assert found["wrong"] == ["people"]
    assert found["people"][name] == 1


def test_a_request_that_makes_something_is_accepted_once(limits: LimitRegistry) -> None:
    twice = [call(n * HOUR, TASKS, digest="same") for n in range(2)]
    assert judged(limits, twice)["wrong"] == ["repeated"]
    assert judged(limits, [twice[0], call(HOUR, TASKS, digest="same", errcode=-1)])["ok"]
    assert judged(limits, [call(n * HOUR, TAG, digest="same", staff_id="s1") for n in range(2)])["ok"]


def test_a_call_that_nobody_documents_is_found(limits: LimitRegistry) -> None:
    found = judged(limits, [call(0, "unknown:externalcontact/del", errcode=48002), call(1, "gettoken")])
    assert found["undocumented"] == {"unknown:externalcontact/del": 1}
    assert found["wrong"] == ["undocumented"]


def test_no_calls_prove_nothing(limits: LimitRegistry) -> None:
    assert judged(limits, [])["wrong"] == ["empty"]


LINE = json.dumps(
    {
        "time_ms": 1,
        "business_ms": NOON,
        "answered_ms": NOON,
        "endpoint": GET,
        "corp_id": "ww1",
        "agent_id": "1",
        "errcode": 0,
        "ip": "192.0.2.1",
        "persons": ["c1"],
    }
)


def test_a_record_may_end_in_the_middle_of_a_line_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(f"{LINE}\n{LINE}\n{LINE[:40]}")
    assert len(list(read_calls(path))) == 2
    path.write_text(f"{LINE}\n{LINE[:40]}\n{LINE}\n")
    with pytest.raises(BadRecord, match=":2:"):
        list(read_calls(path))


@pytest.mark.parametrize("missing", ["ip", "answered_ms", "errcode"])
def test_a_record_without_what_a_proof_needs_proves_nothing(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps({k: v for k, v in json.loads(LINE).items() if k != missing}) + "\n")
    with pytest.raises(BadRecord, match=missing):
        list(read_calls(path))


def test_the_command_says_by_its_status_what_was_proved(
    tmp_path: Path, limits: LimitRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "calls.jsonl", str(tmp_path / "limits")
    path.write_text(f"{LINE}\n" * 10)
    assert main([str(path), "--limits", folder]) == 0
    assert json.loads(capsys.readouterr().out)["calls"] == 10
    path.write_text(f"{LINE}\n" * 11)
    assert main([str(path), "--limits", folder]) == 1
    assert main([str(path), "--limits", str(tmp_path / "nowhere")]) == 2
