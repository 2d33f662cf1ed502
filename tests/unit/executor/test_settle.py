"""How it is found out what became of a call: made needs proof, not made needs proof, everything else is asked again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.executor.settle import SEARCHES, Doubt, Finding, Made, NotMade, Query, Settling
from services.executor.timings import TimingsError, load_timings
from siyu.events import schemas_dir
from siyu.wecom.client import Answer, NotSent, Result, TooLarge, Unknown
from siyu.wecom.endpoints import ENDPOINTS

from .model_platform import MINUTE, NOW, TABLE, TIMINGS, Platform, Refused

X = "externalcontact/"
SEND = X + "add_msg_template"
VISIBLE_MS = NOW + 20_000 + TIMINGS.settle(SEND).visible_after_ms


def settling(
    payload: dict[str, Any], endpoint: str = SEND, *, known: Callable[[str], bool] = lambda made: False
) -> Settling:
    return Settling(Doubt(endpoint, payload, NOW, NOW + 20_000), TIMINGS.settle(endpoint), known, NOW)


def a_message(*people: str, **fields: Any) -> dict[str, Any]:
    return {
        "chat_type": "single",
        "external_userid": list(people),
        "sender": "s1",
        "text": {"content": "hello"},
    } | fields


def ask(machine: Settling, platform: Platform, most: int = 500) -> Finding | None:
    """Asks until something is found out, or nothing more is to be asked before the horizon."""
    for _ in range(most):
        query = machine.query(platform.now_ms)
        if query is None:
            if machine.due_ms >= machine.horizon_ms:
                return None
            platform.now_ms = machine.due_ms
            continue
        machine.asking(platform.now_ms)
        errcode, body = platform.carry_out(query.endpoint, query.payload)
        finding, _ = machine.hear(Answer(errcode, body, 0.1), TABLE, platform.now_ms, 0.0)
        if finding is not None:
            return finding
    raise AssertionError("never found out")


def test_every_call_that_makes_something_has_a_query_that_tells_or_is_known_to_have_none() -> None:
    creating = {endpoint.path for endpoint in ENDPOINTS.values() if endpoint.repeat == "create"}
    assert creating - set(SEARCHES) == {"message/send", X + "remind_groupmsg_send"}
    assert set(SEARCHES) <= creating


@pytest.mark.parametrize(
    ("endpoint", "payload"),
    [
        (SEND, a_message("c1")),
        (X + "add_contact_way", {"type": 1, "scene": 2, "state": "q", "user": ["s1"]}),
        (X + "add_corp_tag", {"group_name": "g", "tag": [{"name": "t"}]}),
        (
            X + "add_moment_task",
            {"text": {"content": "m"}, "visible_range": {"sender_list": {"user_list": ["s1"]}}},
        ),
        (X + "transfer_customer", {"handover_userid": "s1", "takeover_userid": "s2", "external_userid": ["c1"]}),
        (X + "groupchat/onjob_transfer", {"chat_id_list": ["g1"], "new_owner": "s2"}),
    ],
)
def test_queries_stay_in_the_group_of_the_call_so_that_one_shard_asks_and_sends(
    endpoint: str, payload: dict[str, Any]
) -> None:
    platform = Platform()
    platform.carry_out(endpoint, json.dumps(payload).encode())
    assert isinstance(ask(settling(payload, endpoint), platform), Made)
    asked = set(platform.calls) - {endpoint}
    assert asked
    assert {ENDPOINTS[path].group for path in asked} == {ENDPOINTS[endpoint].group}
    assert {ENDPOINTS[path].repeat for path in asked} == {"read"}
    assert isinstance(ask(settling(payload, endpoint), Platform()), NotMade)


def test_not_listed_means_not_made_only_once_it_must_have_been_visible() -> None:
    platform = Platform()
    assert ask(settling(a_message("c1")), platform) == NotMade()
    assert platform.now_ms >= VISIBLE_MS
    assert platform.calls[X + "get_groupmsg_list_v2"] == 2, "at once, and when it can tell"


def test_a_listing_that_began_too_early_does_not_prove_that_nothing_was_made() -> None:
    """Pages of one listing are read while time passes; what counts is when it began."""
    platform = Platform(page=1)
    for person in ("d1", "d2", "d3"):
        platform.carry_out(SEND, json.dumps(a_message(person, text={"content": "other"})).encode())
    machine = settling(a_message("c1"))
    finding = None
    for _ in range(3):
        query = machine.query(platform.now_ms)
        assert query is not None
        machine.asking(platform.now_ms)
        errcode, body = platform.carry_out(query.endpoint, query.payload)
        platform.now_ms += 60_000
        finding, _ = machine.hear(Answer(errcode, body, 0.1), TABLE, platform.now_ms, 0.0)
    assert platform.now_ms > VISIBLE_MS
    assert finding is None
    assert ask(machine, platform) == NotMade()


def test_a_listing_is_followed_to_its_end() -> None:
    platform = Platform(page=2)
    for number in range(9):
        platform.carry_out(SEND, json.dumps(a_message(f"d{number}")).encode())
    platform.carry_out(SEND, json.dumps(a_message("c1", "c2", "c3", "c4", "c5")).encode())
    finding = ask(settling(a_message("c1", "c2", "c3", "c4", "c5", "c6")), platform)
    assert finding == Made("msg9", frozenset({"c1", "c2", "c3", "c4", "c5"}))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (a_message("c1", text={"content": "hello!"}), "another text"),
        (a_message("c1", attachments=[{"msgtype": "image"}]), "with a picture"),
        (a_message("c1", "d1"), "for somebody who is none of ours"),
        (a_message("c1", sender="s2"), "of another member"),
    ],
)
def test_a_message_that_differs_is_not_ours(other: dict[str, Any], why: str) -> None:
    platform = Platform()
    platform.carry_out(SEND, json.dumps(other).encode())
    assert ask(settling(a_message("c1")), platform) == NotMade(), why


def test_a_message_of_another_call_is_not_ours_even_if_it_is_found_meanwhile() -> None:
    platform = Platform()
    for _ in range(2):
        platform.carry_out(SEND, json.dumps(a_message("c1")).encode())
    claimed: set[str] = set()
    machine = settling(a_message("c1"), known=lambda made: made in claimed)
    while (query := machine.query(platform.now_ms)) is None or not query.endpoint.endswith("send_result"):
        if query is None:
            platform.now_ms = machine.due_ms
            continue
        machine.asking(platform.now_ms)
        errcode, body = platform.carry_out(query.endpoint, query.payload)
        machine.hear(Answer(errcode, body, 0.1), TABLE, platform.now_ms, 0.0)
    claimed.add("msg0")
    assert ask(machine, platform) == Made("msg1", frozenset({"c1"}))


def test_a_message_without_anybody_in_it_proves_nothing() -> None:
    class Empty(Platform):
        def _get_groupmsg_send_result(self, body: dict[str, Any]) -> dict[str, Any]:
            if self.now_ms < NOW + 10 * MINUTE:
                return {"send_list": [], "next_cursor": ""}
            return super()._get_groupmsg_send_result(body)

    platform = Empty()
    platform.carry_out(SEND, json.dumps(a_message("c1")).encode())
    assert ask(settling(a_message("c1")), platform) == Made("msg0", frozenset({"c1"}))
    assert platform.now_ms >= NOW + 10 * MINUTE


def test_attachments_are_compared_by_what_comes_back_unchanged() -> None:
    class Shown(Platform):
        def _get_groupmsg_list_v2(self, body: dict[str, Any]) -> dict[str, Any]:
            listed = super()._get_groupmsg_list_v2(body)
            shown = {"msgtype": "link", "link": {"title": "t", "url": "https://u", "picurl": "https://other"}}
            return listed | {"group_msg_list": [m | {"attachments": [shown]} for m in listed["group_msg_list"]]}

    platform = Shown()
    link = {"msgtype": "link", "link": {"title": "t", "url": "https://u", "picurl": "https://p"}}
    platform.carry_out(SEND, json.dumps(a_message("c1")).encode())
    assert isinstance(ask(settling(a_message("c1", attachments=[link])), platform), Made)
    link["link"]["url"] = "https://v"  # type: ignore[index]
    assert isinstance(ask(settling(a_message("c1", attachments=[link])), platform), NotMade)


def test_a_text_that_the_platform_tidied_up_is_still_ours() -> None:
    platform = Platform()
    platform.carry_out(SEND, json.dumps(a_message("c1", text={"content": "新品到店!\n满100减20"})).encode())
    wanted = a_message("c1", text={"content": " 新品到店！\r\n满100减20 "})
    assert isinstance(ask(settling(wanted), platform), Made)


def first(machine: Settling) -> Query:
    query = machine.query(max(NOW, machine.due_ms))
    assert query is not None
    machine.asking(max(NOW, machine.due_ms))
    return query


@pytest.mark.parametrize(
    ("result", "again"),
    [
        (Unknown("timeout", 20.0), 125),
        (NotSent("connection_refused", 0.0), 125),
        (TooLarge(1.0), 15_000),
        (Answer(-1, b"{}", 0.1), 1_000),
        (Answer(41063, b"{}", 0.1), 60_000),
        (Answer(45009, b"{}", 0.1), 0),
        (Answer(45033, b"{}", 0.1), 500),
        (Answer(40014, b"{}", 0.1), 500),
        (Answer(48001, b"{}", 0.1), 15_000),
        (Answer(0, b"{}", 0.1), 15_000),
        (Answer(0, b'{"group_msg_list": 3}', 0.1), 15_000),
        (Answer(0, b"nonsense", 0.1), 15_000),
        (Answer(0, b'{"group_msg_list": [{"create_time": 1}]}', 0.1), 15_000),
    ],
)
def test_an_answer_that_is_none_is_asked_for_again_and_is_never_not_found(result: Result, again: int) -> None:
    machine = settling(a_message("c1"))
    now_ms = VISIBLE_MS + 1
    query = machine.query(now_ms)
    assert query is not None
    machine.asking(now_ms)
    finding, verdict = machine.hear(result, TABLE, now_ms, 0.0)
    assert finding is None
    assert machine.due_ms == now_ms + again
    assert verdict.freeze == (result == Answer(45009, b"{}", 0.1))
    assert first(machine).endpoint == query.endpoint


def test_what_wecom_does_not_list_is_left_to_a_person() -> None:
    machine = settling({"type": 1, "scene": 2, "is_temp": True}, X + "add_contact_way")
    assert machine.query(NOW) is None
    assert machine.due_ms == machine.horizon_ms
    machine = settling({"touser": "s1"}, "message/send")
    assert machine.query(NOW) is None
    assert machine.due_ms == machine.horizon_ms


@pytest.mark.parametrize(
    "payload",
    [
        {"external_userid": 7},
        {"external_userid": [["c1"]]},
        {"external_userid": ["c1"], "attachments": 3},
    ],
)
def test_a_payload_nobody_can_search_for_is_left_to_a_person(payload: dict[str, Any]) -> None:
    machine = settling(payload)
    platform = Platform()
    platform.carry_out(SEND, json.dumps(a_message("c1", text={"content": ""})).encode())
    assert ask(machine, platform) in (None, NotMade())


def test_a_way_that_is_gone_again_is_passed_over() -> None:
    class Gone(Platform):
        def _get_contact_way(self, body: dict[str, Any]) -> dict[str, Any]:
            if body["config_id"] == "way0":
                raise Refused(41039)
            return super()._get_contact_way(body)

    way = {"type": 1, "scene": 2, "state": "q", "user": ["s1"]}
    platform = Gone()
    for _ in range(2):
        platform.carry_out(X + "add_contact_way", json.dumps(way).encode())
    assert ask(settling(way, X + "add_contact_way"), platform) == Made("way1")


def test_an_earlier_transfer_of_the_same_customer_is_not_this_one() -> None:
    wanted = {"handover_userid": "s1", "takeover_userid": "s2", "external_userid": ["c1", "c2"]}
    platform = Platform()
    platform.transfers["s1", "s2", "c1"] = NOW // 1000 - 86_400
    assert ask(settling(wanted, X + "transfer_customer"), platform) == NotMade()
    platform.transfers["s1", "s2", "c2"] = NOW // 1000 + 86_400
    assert ask(settling(wanted, X + "transfer_customer"), platform) == Made(items=frozenset({"c2"}))


# ---- the timings


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = yaml.safe_load((schemas_dir() / "rules" / "executor.yaml").read_text(encoding="utf-8"))
    change(content["versions"][0])
    copy = path / "executor.yaml"
    copy.write_text(yaml.safe_dump(content), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: v["lanes"].pop("sync"), "sync is missing"),
        (lambda v: v["lanes"]["bulk"].update(call_timeout_ms=0), "call_timeout_ms"),
        (lambda v: v["harvest"].update(every_ms=[]), "every_ms is empty"),
        (lambda v: v["harvest"].update(every_ms=[1, -1]), "every_ms"),
        (lambda v: v["settle"]["endpoints"].update({X + "nothing": {"every_ms": 1}}), "nothing"),
        (lambda v: v["settle"]["endpoints"].update({SEND: {"horizon_ms": 5}}), "horizon_ms must be later"),
        (lambda v: v["sends"].update(peeple=3), "peeple"),
        (lambda v: v.pop("version"), "version"),
    ],
)
def test_timings_that_contradict_themselves_are_refused_with_their_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    with pytest.raises(TimingsError, match=named):
        load_timings(edited(tmp_path, change))


def test_timings_hold_from_their_date_on(tmp_path: Path) -> None:
    path = schemas_dir() / "rules" / "executor.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    later = json.loads(json.dumps(content["versions"][0], default=str))
    later |= {"version": "later", "effective_from": "2026-06-01"}
    content["versions"].append(later)
    copy = tmp_path / "executor.yaml"
    copy.write_text(yaml.safe_dump(content), encoding="utf-8")
    timings = load_timings(copy)
    midnight_ms = 1_780_243_200_000  # 2026-06-01 in Beijing
    assert timings.at(midnight_ms - 1).version != "later"
    assert timings.at(midnight_ms).version == "later"
