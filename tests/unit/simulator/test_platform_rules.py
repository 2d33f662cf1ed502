"""Throttling, tokens and welcome codes as rules over time, without a network."""

from simulator.apps import App
from simulator.platform.errors import ApiError
from simulator.platform.throttle import Limits, Throttle
from simulator.platform.tokens import Tokens
from simulator.platform.welcomes import Welcomes
from simulator.world.relations import ContactChange

APP = App("ww1", "1", "right", "t", "A" * 43, "http://receiver")


def code_of(call, *args, **kwargs) -> int:
    try:
        call(*args, **kwargs)
    except ApiError as error:
        return error.errcode
    return 0


def test_the_call_past_the_minute_limit_blocks_the_api_for_a_minute():
    throttle = Throttle(Limits(per_minute=3))
    assert [code_of(throttle.count, "corp:ww1", "get", t) for t in (0.0, 1.0, 2.0, 3.0)] == [0, 0, 0, 45009]
    assert code_of(throttle.count, "corp:ww1", "get", 62.9) == 45009, "the block is as long as the window"
    assert code_of(throttle.count, "corp:ww1", "get", 63.0) == 0


def test_corps_and_apis_are_counted_apart():
    throttle = Throttle(Limits(per_minute=1))
    assert code_of(throttle.count, "corp:ww1", "get", 0.0) == 0
    assert code_of(throttle.count, "corp:ww1", "list", 0.0) == 0
    assert code_of(throttle.count, "corp:ww2", "get", 0.0) == 0
    assert code_of(throttle.count, "corp:ww1", "get", 1.0) == 45009


def test_the_hour_limit_blocks_for_an_hour():
    throttle = Throttle(Limits(per_minute=100, per_hour=4))
    assert [code_of(throttle.count, "corp:ww1", "get", t * 100.0) for t in range(5)] == [0, 0, 0, 0, 45009]
    assert code_of(throttle.count, "corp:ww1", "get", 400.0 + 3_599) == 45009
    assert code_of(throttle.count, "corp:ww1", "get", 400.0 + 3_600) == 0


def test_debug_caps_an_api_at_five_a_minute():
    throttle = Throttle(Limits())
    assert [code_of(throttle.count, "corp:ww1", "get", 0.0, debug=True) for _ in range(6)] == [0] * 5 + [45009]
    assert code_of(throttle.count, "corp:ww1", "get", 0.0) == 0


def test_the_sixth_call_in_flight_is_refused_and_one_may_follow_when_one_ends():
    throttle = Throttle(Limits())
    assert [code_of(throttle.enter, "corp:ww1", "get") for _ in range(6)] == [0] * 5 + [45033]
    assert code_of(throttle.enter, "corp:ww1", "list") == 0
    throttle.leave("corp:ww1", "get")
    assert code_of(throttle.enter, "corp:ww1", "get") == 0


def test_wrong_secrets_ban_the_address_for_an_hour():
    throttle = Throttle(Limits(wrong_secrets_per_hour=2))
    for t in (0.0, 1.0):
        throttle.wrong_secret("10.0.0.1", t)
    assert code_of(throttle.check_banned, "10.0.0.1", 2.0) == 0
    throttle.wrong_secret("10.0.0.1", 2.0)
    assert code_of(throttle.check_banned, "10.0.0.1", 3.0) == 45009
    assert code_of(throttle.check_banned, "10.0.0.2", 3.0) == 0
    assert code_of(throttle.check_banned, "10.0.0.1", 3_602.0) == 0


def test_a_token_is_the_same_while_it_is_valid_and_another_one_after():
    tokens = Tokens([APP], 7_200)
    first, seconds = tokens.issue("ww1", "right", 0.0)
    assert seconds == 7_200
    assert tokens.issue("ww1", "right", 7_000.0) == (first, 200)
    assert len(first) <= 512
    second, _ = tokens.issue("ww1", "right", 7_200.0)
    assert second != first
    assert code_of(tokens.app_of, first, 7_200.0) == 42001
    assert tokens.app_of(second, 7_200.0) == APP


def test_tokens_that_are_missing_unknown_or_withdrawn():
    tokens = Tokens([APP], 7_200)
    token, _ = tokens.issue("ww1", "right", 0.0)
    assert code_of(tokens.app_of, None, 0.0) == 41001
    assert code_of(tokens.app_of, "", 0.0) == 41001
    assert code_of(tokens.app_of, "guess", 0.0) == 40014
    tokens.withdraw("ww1")
    assert code_of(tokens.app_of, token, 1.0) == 40014
    assert code_of(tokens.issue, "ww9", "right", 0.0) == 40013
    assert code_of(tokens.issue, "ww1", "wrong", 0.0) == 40001


def arrival(time_s: int = 1_000, change: str = "add") -> ContactChange:
    return ContactChange(time_s, "ww1", "s1", "c1", change, welcome=True)


def test_a_code_lives_twenty_seconds_of_business_time():
    for at_ms, expected in ((1_020_000, 0), (1_020_001, 41050)):
        welcomes = Welcomes(1, 20)
        code = welcomes.issue(arrival())
        assert code_of(welcomes.use, code, "7", at_ms) == expected
        assert welcomes.late == (expected == 41050)


def test_a_code_works_once_and_only_for_its_corp():
    welcomes = Welcomes(1, 20)
    code = welcomes.issue(arrival())
    assert code_of(Welcomes(1, 20).use, code, "7", 1_001_000) == 41050
    assert code_of(welcomes.use, "guess", "7", 1_001_000) == 41050
    assert code_of(welcomes.use, code, "7", 1_001_000) == 0
    assert code_of(welcomes.use, code, "7", 1_002_000) == 41051
    assert code_of(welcomes.use, code, "8", 1_002_000) == 41096, "another app's, while the first one is on its way"
    assert code_of(welcomes.use, code, "8", 1_004_000) == 41051
    assert welcomes.sent == 1


def test_a_welcome_through_the_half_add_leaves_none_for_the_add():
    welcomes = Welcomes(1, 20)
    half = welcomes.issue(arrival(1_000, "add_half"))
    welcomes.use(half, "7", 1_001_000)
    assert welcomes.issue(arrival(1_006)) == ""
    welcomes.parted(("ww1", "s1", "c1"))
    assert welcomes.issue(arrival(1_020)) != "", "after parting it is a new acquaintance"


def test_two_codes_of_one_acquaintance_give_one_welcome():
    welcomes = Welcomes(1, 20)
    half, full = welcomes.issue(arrival(1_000, "add_half")), welcomes.issue(arrival(1_006))
    assert half != full
    welcomes.use(full, "7", 1_007_000)
    assert code_of(welcomes.use, half, "7", 1_008_000) == 41051
    assert welcomes.settled(1_008_000)


def test_codes_settle_by_use_or_by_age():
    welcomes = Welcomes(1, 20)
    welcomes.issue(arrival())
    assert not welcomes.settled(1_020_000)
    assert welcomes.settled(1_020_001)
