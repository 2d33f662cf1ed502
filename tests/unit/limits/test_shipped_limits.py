"""What the shipped registry says, against the fact sheet's own numbers."""

import datetime as dt

import pytest

from siyu.events import schemas_dir
from siyu.limits import Calendar, Concurrent, Limit, LimitRegistry, LimitSet, Sliding, load_registry
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN, quota_scope

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@pytest.fixture(scope="module")
def registry() -> LimitRegistry:
    return load_registry(schemas_dir() / "limits")


@pytest.fixture(scope="module")
def today(registry: LimitRegistry) -> LimitSet:
    return registry.at(beijing(2026, 11, 22))


def beijing(*moment: int) -> int:
    year, month, day, *rest = moment
    zone = dt.timezone(dt.timedelta(hours=8))
    return int(dt.datetime(year, month, day, *rest, tzinfo=zone).timestamp() * 1000)  # type: ignore[misc,arg-type]


def short(limits: tuple[Limit, ...]) -> set[tuple[str, str, int]]:
    return {(limit.scope, str(limit.window), limit.amount) for limit in limits}


BASE = {
    ("corp_api", "concurrent", 5),
    ("corp_api", "concurrent", 4),
    ("corp_api", "sliding 10 s", 2_000),
    ("corp_api", "sliding 1 min", 10_000),
    ("corp_api", "sliding 1 h", 150_000),
    ("ip_api", "sliding 1 min", 20_000),
    ("ip_api", "sliding 1 h", 600_000),
}


def test_a_call_without_limits_of_its_own_has_the_base_limits(today: LimitSet) -> None:
    assert short(today.of("ww1", "externalcontact/get")) == BASE


def test_an_app_message_is_not_counted_in_the_base_limits(today: LimitSet) -> None:
    assert short(today.of("ww1", "message/send")) == {
        ("corp_api", "concurrent", 5),
        ("corp_api", "concurrent", 4),
        ("app_api", "calendar day", 20_000),
        ("staff_api", "sliding 1 min", 30),
        ("staff_api", "sliding 1 h", 1_000),
    }
    day = next(limit for limit in today.of("ww1", "message/send") if limit.scope == "app_api")
    assert (day.counts, day.paced, day.block) == ("persons", True, "day")


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        (
            "externalcontact/add_moment_task",
            {("corp_api", "sliding 1 min", 10), ("corp_api", "calendar month", 100_000)},
        ),
        ("externalcontact/remind_groupmsg_send", {("message_api", "sliding 24 h", 3)}),
        ("externalcontact/groupchat/transfer", {("staff_api", "calendar day", 300)}),
        ("externalcontact/groupchat/onjob_transfer", {("staff_api", "calendar day", 300)}),
        ("gettoken", {("ip_api", "sliding 1 h", 2_000)}),
    ],
)
def test_endpoints_have_limits_beside_the_base(today: LimitSet, endpoint: str, more: set[tuple[str, str, int]]) -> None:
    assert short(today.of("ww1", endpoint)) == BASE | more


def test_older_lower_limits_hold_for_older_days(registry: LimitRegistry) -> None:
    change = beijing(2025, 11, 1)
    before, after = registry.at(change - 1), registry.at(change)
    assert [(x.id, x.amount) for x in before.limits if x.id.startswith("corp_api_")] == [
        ("corp_api_concurrency", 5),
        ("corp_api_hour", 30_000),
        ("corp_api_minute", 2_000),
    ]
    assert {x.id for x in before.limits} == {x.id for x in after.limits}
    assert ("corp_api", "sliding 1 min", 10_000) in short(after.of("ww1", "externalcontact/get"))
    assert registry.next_change_ms(change - 1) == change
    assert registry.next_change_ms(change) is None


@pytest.mark.parametrize(
    ("endpoint", "field", "amount"),
    [
        ("externalcontact/add_msg_template", "", 10_000),
        ("externalcontact/add_msg_template", "chat_id_list", 2_000),
        ("externalcontact/mark_tag", "", 1_000),
        ("message/send", "", 1_000),
        ("message/send", "toparty", 100),
        ("externalcontact/transfer_customer", "", 100),
        ("externalcontact/resigned/transfer_customer", "", 100),
        ("externalcontact/groupchat/transfer", "", 100),
        ("externalcontact/groupchat/onjob_transfer", "", 100),
        ("externalcontact/batch/get_by_user", "", 100),
        ("externalcontact/add_moment_task", "", 100_000),
        ("externalpay/get_bill_list", "limit", 1_000),
        ("externalcontact/remark", "", None),
        ("externalcontact/remark", "external_userid", None),
    ],
)
def test_how_many_ids_a_request_may_name(today: LimitSet, endpoint: str, field: str, amount: int | None) -> None:
    assert today.request_limit("ww1", endpoint, field) == amount


@pytest.mark.parametrize(
    ("window", "amounts"),
    [
        # Fact sheet 4.1
        ("sliding 1 min", {10_000, 20_000, 40_000, 30, 200, 10}),
        ("sliding 1 h", {150_000, 600_000, 1_200_000, 1_000, 400, 100, 300_000}),
        ("calendar day", {1_000, 10_000, 300, 480_000, 240_000, 3}),
        ("calendar month", {3_000, 100_000, 7_500_000, 4, 28}),
        ("sliding 24 h", {3}),
        ("sliding 90 d", {2}),
        ("concurrent", {5, 4, 1}),
        ("request", {10_000, 2_000, 20_000, 100, 1_000}),
    ],
)
def test_every_number_of_the_fact_sheet_is_there(today: LimitSet, window: str, amounts: set[int]) -> None:
    assert amounts <= {limit.amount for limit in today.limits if str(limit.window) == window}


def test_only_what_the_platform_says_afterwards_or_we_only_know_of_is_not_admitted_by(today: LimitSet) -> None:
    observed = {limit.id for limit in today.limits if limit.enforce == "observe" and not limit.outside}
    assert observed == {
        "customer_transfers_90_days",
        "group_onjob_transfers_90_days",
        "mass_messages_received_month",
        "moments_received_month",
        "pace_corp_minute",
    }
    counted = {limit.id for endpoint in (*ENDPOINTS, GETTOKEN) for limit in today.of("ww1", endpoint)}
    assert not counted & observed


def test_what_we_chose_ourselves_says_so_and_nothing_else_does(today: LimitSet) -> None:
    for limit in today.limits:
        assert limit.ours == limit.id.startswith("pace_"), limit.id


def test_calendar_quotas_and_blocks_fit_each_other(today: LimitSet) -> None:
    for limit in today.limits:
        if limit.outside or limit.enforce == "observe" or limit.ours:
            continue
        match limit.window:
            case Calendar("day"):
                assert limit.block == "day", limit.id
            case Calendar("month"):
                assert limit.block == "days_30", limit.id
            case Concurrent():
                assert limit.block == "none", limit.id
            case Sliding():
                assert limit.block in ("window", "silent"), limit.id


def test_endpoints_that_count_together_share_a_shard(today: LimitSet) -> None:
    for limit in today.limits:
        if limit.scope != "request" and not limit.outside:
            assert len({quota_scope("ww1", endpoint) for endpoint in limit.endpoints}) <= 1, limit.id


def test_lanes_fill_a_shared_limit_to_their_share(today: LimitSet) -> None:
    minute = next(x for x in today.of("ww1", "externalcontact/get") if x.id == "corp_api_minute")
    assert [today.allowed(minute, lane) for lane in ("welcome", "urgent", "bulk", "sync")] == [
        10_000,
        9_500,
        8_000,
        8_000,
    ]


def test_a_persons_limit_is_not_shared_and_a_share_is_never_nothing(today: LimitSet) -> None:
    reminders = next(x for x in today.limits if x.id == "message_reminders")
    assert today.allowed(reminders, "bulk") == 3
    pace = next(x for x in today.limits if x.id == "pace_concurrency")
    assert [today.allowed(pace, "bulk", percent) for percent in (100, 50, 1, 0)] == [3, 1, 1, 0]


@pytest.mark.parametrize("day", [(2024, 5, 1), (2026, 11, 22)])
def test_a_corps_backlog_is_spread_over_the_minute_with_room_to_catch_up(
    registry: LimitRegistry, day: tuple[int, int, int]
) -> None:
    amounts = {limit.id: limit.amount for limit in registry.at(beijing(*day)).limits}
    assert amounts["pace_corp_ten_seconds"] * 6 == amounts["corp_api_minute"] * 1.2


def test_the_guard_shrinks_only_our_paces(today: LimitSet) -> None:
    minute = next(x for x in today.limits if x.id == "corp_api_minute")
    assert today.allowed(minute, "welcome", 0) == 10_000
