"""What an executor does of itself before the guard has answered, and how it reads the guard's word."""

from __future__ import annotations

import pytest

from services.executor.guard import Breaker, GuardTable
from siyu.events import GuardSignal, GuardState, codec, schemas_dir
from siyu.guard.rules import RuleBook, load_rules

NOW = 1_790_000_000_000
CORP, STAFF, CAMPAIGN = "ww1", "mei", "autumn"
SEND, REMARK, READ = "externalcontact/add_msg_template", "externalcontact/remark", "externalcontact/get"
CANCEL = "externalcontact/cancel_groupmsg_send"
MINUTE = 60_000


@pytest.fixture(scope="module")
def rules() -> RuleBook:
    return load_rules(schemas_dir() / "rules" / "guard.yaml")


@pytest.fixture
def table(rules: RuleBook) -> GuardTable:
    return GuardTable(rules)


@pytest.fixture
def breaker(rules: RuleBook, table: GuardTable) -> Breaker:
    return Breaker(rules, table, shard=3, incarnation="7")


def tell(
    table: GuardTable, standing: str, *, staff: str = STAFF, until: int = 0, percent: int = 0, revision: int = 1
) -> bool:
    state = GuardState(CORP, staff, standing, 1, until, percent, 0, "ban", "", revision, NOW)  # type: ignore[arg-type]
    return table.apply(f"{CORP}|{staff}".encode(), codec().encode(state))


def blocks(
    table: GuardTable, endpoint: str = SEND, *, staff: str = STAFF, campaign: str = CAMPAIGN, now: int = NOW
) -> str | None:
    return table.blocks(CORP, staff, campaign, endpoint, "bulk", now)


def test_an_account_nobody_spoke_of_is_trusted(table: GuardTable) -> None:
    assert blocks(table) is None
    assert table.allowance(CORP, STAFF, NOW) == 100


def test_a_cooling_staff_member_sends_nothing_until_the_time_is_over_even_if_no_record_says_so(
    table: GuardTable, rules: RuleBook
) -> None:
    assert tell(table, "cooling", until=NOW + MINUTE)
    assert blocks(table) == "staff_cooling"
    assert table.blocks(CORP, STAFF, "", "externalcontact/send_welcome_msg", "welcome", NOW) == "staff_cooling"
    assert blocks(table, READ) is None
    assert blocks(table, CANCEL) is None
    assert blocks(table, staff="other") is None
    assert table.allowance(CORP, STAFF, NOW) == 0
    after = NOW + MINUTE
    assert blocks(table, now=after) is None
    assert table.allowance(CORP, STAFF, after) == rules.at(after).rules.score.after_cooling_percent


def test_a_cooling_corp_reads_and_takes_back_and_a_stopped_one_does_nothing(table: GuardTable) -> None:
    tell(table, "cooling", staff="", until=NOW + MINUTE)
    assert [blocks(table, e) for e in (SEND, READ, CANCEL)] == ["corp_cooling", None, None]
    tell(table, "stopped", staff="", revision=2)
    assert [blocks(table, e) for e in (SEND, READ, CANCEL)] == ["corp_stopped"] * 3
    assert table.allowance(CORP, STAFF, NOW) == 0


def test_a_stopped_campaign_stops_nothing_else(table: GuardTable) -> None:
    tell(table, "stopped", staff="~autumn")
    assert blocks(table) == "campaign_stopped"
    assert blocks(table, campaign="winter") is None
    assert [blocks(table, e) for e in (READ, CANCEL)] == [None, None]
    assert table.allowance(CORP, STAFF, NOW) == 100


def test_the_smaller_allowance_of_corp_and_staff_counts(table: GuardTable) -> None:
    tell(table, "watched", percent=50)
    tell(table, "watched", staff="", percent=75)
    assert table.allowance(CORP, STAFF, NOW) == 50
    assert table.allowance(CORP, "other", NOW) == 75
    assert table.allowance(CORP, "", NOW) == 75


def test_what_cannot_be_read_or_is_another_accounts_changes_nothing(table: GuardTable) -> None:
    tell(table, "stopped")
    assert not table.apply(b"ww1|mei", b"not avro")
    assert not table.apply(b"ww1|\xff", b"")
    clear = GuardState(CORP, "other", "clear", 0, 0, 100, 0, "", "", 9, NOW)
    assert not table.apply(b"ww1|mei", codec().encode(clear))
    assert blocks(table) == "staff_stopped"


def test_reading_the_topic_again_frees_nobody(table: GuardTable) -> None:
    tell(table, "stopped", revision=5)
    assert tell(table, "clear", percent=100, revision=4)
    assert blocks(table) == "staff_stopped"
    assert tell(table, "clear", percent=100, revision=6)
    assert blocks(table) is None


def test_a_tombstone_forgets_the_account(table: GuardTable) -> None:
    tell(table, "stopped")
    assert table.apply(b"ww1|mei", None)
    assert blocks(table) is None


def answer(breaker: Breaker, errcode: int | None, now: int = NOW, staff: str = STAFF) -> list[GuardSignal]:
    return breaker.record(CORP, SEND, staff, errcode, now, campaign_id=CAMPAIGN, action_id="a1", wall_ms=5)


def test_an_answer_that_names_a_ban_stops_the_staff_member_at_once_and_is_told_once_a_minute(
    breaker: Breaker, table: GuardTable, rules: RuleBook
) -> None:
    (signal,) = answer(breaker, 40143)
    assert (signal.kind, signal.staff_id, signal.errcode, signal.count) == ("ban", STAFF, 40143, 1)
    assert (signal.event_time_ms, signal.written_at_ms) == (NOW, 5)
    assert blocks(table) == "staff_cooling"
    assert answer(breaker, 40143, NOW + 1) == []
    hold = rules.at(NOW).rules.breaker.hold_ms
    assert blocks(table, now=NOW + hold) == "staff_cooling"
    assert blocks(table, now=NOW + hold + 1) is None


def test_a_hold_ends_with_the_guards_word_and_not_with_an_older_one(breaker: Breaker, table: GuardTable) -> None:
    answer(breaker, 40143, NOW + 1)
    tell(table, "clear", percent=100, revision=1)
    assert blocks(table, now=NOW + 2) == "staff_cooling"
    answered = GuardState(CORP, STAFF, "clear", 1, 0, 100, 0, "", "", 2, NOW + 1)
    assert table.apply(b"ww1|mei", codec().encode(answered))
    assert blocks(table, now=NOW + 2) is None


def test_two_shards_that_see_the_same_ban_say_the_same_thing(rules: RuleBook, table: GuardTable) -> None:
    one = Breaker(rules, table, shard=1, incarnation="1")
    two = Breaker(rules, table, shard=2, incarnation="9")
    assert answer(one, 40143)[0].signal_id == answer(two, 40143)[0].signal_id


def test_a_ban_without_a_staff_member_says_nothing_about_the_corp(breaker: Breaker, table: GuardTable) -> None:
    assert answer(breaker, 40143, staff="") == []
    assert blocks(table, staff="") is None


def test_refused_content_stops_its_campaign_at_once(breaker: Breaker, table: GuardTable) -> None:
    (signal,) = answer(breaker, 40201)
    assert (signal.kind, signal.campaign_id) == ("content", CAMPAIGN)
    assert blocks(table) == "campaign_stopped"
    assert blocks(table, campaign="winter") is None
    (without,) = answer(breaker, 40204, staff="")
    assert (without.kind, without.staff_id) == ("content", "")


@pytest.mark.parametrize("errcode", [48002, 60031, 301007])
def test_a_barred_corp_stops_everything_reads_too(breaker: Breaker, table: GuardTable, errcode: int) -> None:
    (signal,) = answer(breaker, errcode)
    assert (signal.kind, signal.staff_id) == ("barred", "")
    assert blocks(table, READ, staff="other", campaign="") == "corp_stopped"


def test_calls_of_one_corp_and_api_rest_once_most_of_them_fail(breaker: Breaker, rules: RuleBook) -> None:
    rule = rules.at(NOW).rules.breaker.corp_api
    for n in range(rule.calls):
        assert breaker.open_until(CORP, SEND, f"s{n}", NOW) == 0
        answer(breaker, None, staff=f"s{n}")
    assert breaker.open_until(CORP, SEND, "anybody", NOW) == NOW + rule.open_ms
    assert breaker.open_until(CORP, REMARK, "anybody", NOW) == 0
    assert breaker.open_until("ww2", SEND, "anybody", NOW) == 0


def opened(breaker: Breaker, rules: RuleBook) -> int:
    """Fails until it rests; the time the rest ends."""
    for n in range(rules.at(NOW).rules.breaker.corp_api.calls):
        answer(breaker, -1, staff=f"s{n}")
    return breaker.open_until(CORP, SEND, "", NOW)


def test_after_the_rest_one_call_tries_and_a_success_closes(breaker: Breaker, rules: RuleBook) -> None:
    half = opened(breaker, rules)
    assert breaker.open_until(CORP, SEND, "", half) == 0
    breaker.trying(CORP, SEND, STAFF, half)
    assert breaker.open_until(CORP, SEND, "", half) > half
    answer(breaker, 0, half + 50)
    assert breaker.open_until(CORP, SEND, "", half + 50) == 0
    answer(breaker, -1, half + 60)
    assert breaker.open_until(CORP, SEND, "", half + 60) == 0


def test_a_failed_trial_doubles_the_rest_up_to_the_longest(breaker: Breaker, rules: RuleBook) -> None:
    rule = rules.at(NOW).rules.breaker.corp_api
    now, rests = opened(breaker, rules), []
    for _ in range(10):
        breaker.trying(CORP, SEND, STAFF, now)
        answer(breaker, -1, now)
        rests.append(breaker.open_until(CORP, SEND, "", now) - now)
        now += rests[-1]
    assert rests[:3] == [2 * rule.open_ms, 4 * rule.open_ms, 8 * rule.open_ms]
    assert rests[-1] == rule.longest_ms


def test_a_trial_nobody_answers_lets_another_one_try(breaker: Breaker, rules: RuleBook) -> None:
    half = opened(breaker, rules)
    breaker.trying(CORP, SEND, STAFF, half)
    again = breaker.open_until(CORP, SEND, "", half)
    assert breaker.open_until(CORP, SEND, "", again) == 0


def test_refusals_of_single_items_do_not_rest_an_api(breaker: Breaker) -> None:
    for n in range(200):
        answer(breaker, 84061, staff=f"s{n}")
    assert breaker.open_until(CORP, SEND, STAFF, NOW) == 0


def test_few_failures_among_many_calls_do_not_rest_an_api(breaker: Breaker) -> None:
    for n in range(400):
        answer(breaker, -1 if n % 4 == 0 else 0)
    assert breaker.open_until(CORP, SEND, STAFF, NOW) == 0


def test_a_staff_member_whose_calls_fail_rests_alone(breaker: Breaker, rules: RuleBook) -> None:
    for _ in range(rules.at(NOW).rules.breaker.staff.calls):
        answer(breaker, 60111)
    assert breaker.open_until(CORP, REMARK, STAFF, NOW) > NOW
    assert breaker.open_until(CORP, SEND, "other", NOW) == 0


def test_abnormal_traffic_rests_the_api_with_the_first_answer(breaker: Breaker) -> None:
    (signal,) = answer(breaker, 45036)
    assert (signal.kind, signal.staff_id) == ("abnormal_traffic", "")
    assert breaker.open_until(CORP, SEND, "other", NOW) == NOW + MINUTE


def test_touches_and_failures_are_told_once_when_their_minute_is_over(breaker: Breaker) -> None:
    start = NOW // MINUTE * MINUTE
    for _ in range(3):
        breaker.touched(CORP, STAFF, CAMPAIGN, 100, start)
        answer(breaker, 84061, start)
    breaker.touched(CORP, "other", "", 1, start + MINUTE)
    assert breaker.next_due_ms() == start + MINUTE
    assert breaker.due_signals(start + MINUTE - 1) == []
    told = breaker.due_signals(start + MINUTE)
    assert [(s.kind, s.staff_id, s.campaign_id, s.count, s.event_time_ms) for s in told] == [
        ("touch", STAFF, CAMPAIGN, 300, start),
        ("failure_relation", STAFF, "", 3, start),
    ]
    assert breaker.due_signals(start + MINUTE) == []
    assert [s.staff_id for s in breaker.due_signals(start + 2 * MINUTE)] == ["other"]
    assert breaker.next_due_ms() == 0


def test_the_same_minute_has_one_id_for_one_owner_and_another_for_the_next(rules: RuleBook, table: GuardTable) -> None:
    def first_id(incarnation: str) -> str:
        breaker = Breaker(rules, table, shard=3, incarnation=incarnation)
        breaker.touched(CORP, STAFF, CAMPAIGN, 1, NOW)
        return breaker.due_signals(NOW + MINUTE)[0].signal_id

    assert first_id("7") == first_id("7") != first_id("8")


def test_circuits_nobody_uses_are_forgotten(breaker: Breaker, rules: RuleBook) -> None:
    opened(breaker, rules)
    breaker.due_signals(NOW + 86_400_000)
    assert not breaker._apis
    assert not breaker._staff
