from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.executor.domain import (
    DETAILS,
    Again,
    Attempts,
    Decision,
    End,
    Freeze,
    RenewToken,
    SlowDown,
    answered,
    gave_up,
    is_late,
    unanswered,
)
from siyu.events import Action
from siyu.wecom.errors import ErrorTable

MakeAction = Callable[..., Action]
NOW = 1_001_000


def test_an_action_may_start_at_its_deadline_and_not_after(action: MakeAction) -> None:
    assert not is_late(action(deadline_ms=NOW), NOW)
    assert is_late(action(deadline_ms=NOW), NOW + 1)
    assert not is_late(action(deadline_ms=0), NOW)


def run(action: Action, table: ErrorTable, codes: list[int], now_ms: int = NOW) -> tuple[Attempts, list[Decision]]:
    attempts, decisions = Attempts(), []
    for code in codes:
        attempts, decision = answered(action, attempts, code, table, now_ms, 0.0)
        decisions.append(decision)
        if isinstance(decision, End):
            break
    return attempts, decisions


@pytest.mark.parametrize(
    ("codes", "decisions"),
    [
        ([0], [End("done", "ok")]),
        ([41051], [End("already_done", "already_welcomed")]),
        ([41050], [End("expired", "code_expired")]),
        ([40096], [End("rejected", "refused")]),
        ([60020], [End("failed", "human_needed")]),
        ([123456], [End("failed", "unknown_errcode")]),
        ([-1, -1, -1], [Again(1000), Again(2000), End("failed", "retries_used_up")]),
        ([-1, 0], [Again(1000), End("done", "ok")]),
        ([40014, 0], [RenewToken(), End("done", "ok")]),
        ([42001, 40014], [RenewToken(), End("failed", "token_refused")]),
        ([45009, 0], [Freeze(0), End("done", "ok")]),
        ([41094], [Freeze(86_400_000)]),
        ([45033, 0], [SlowDown(500), End("done", "ok")]),
        ([41096] * 12, [Again(1000)] * 12),
        ([84061, 84061], [Again(3000), End("rejected", "not_a_customer")]),
    ],
)
def test_what_an_answer_leads_to(
    action: MakeAction, table: ErrorTable, codes: list[int], decisions: list[Decision]
) -> None:
    assert run(action(), table, codes)[1] == decisions


def test_an_action_that_is_not_young_gets_no_extra_try(action: MakeAction, table: ErrorTable) -> None:
    assert run(action(), table, [84061], now_ms=1_060_000)[1] == [End("rejected", "not_a_customer")]


def test_silence_is_followed_by_another_call_with_growing_pauses() -> None:
    attempts, pauses = Attempts(), []
    for _ in range(8):
        attempts, decision = unanswered(attempts, sent=True, jitter=1.0)
        assert isinstance(decision, Again)
        pauses.append(decision.delay_ms)
    assert pauses == [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]
    assert (attempts.calls, attempts.in_doubt) == (8, True)


def test_what_was_not_sent_is_no_call_and_leaves_no_doubt() -> None:
    attempts, _ = unanswered(Attempts(), sent=False, jitter=0.5)
    assert (attempts.calls, attempts.in_doubt) == (0, False)


def test_a_write_without_an_answer_is_never_called_expired(action: MakeAction, table: ErrorTable) -> None:
    doubted, _ = unanswered(Attempts(), sent=True, jitter=0.0)
    assert gave_up(doubted, "write", held=False) == End("failed", "outcome_unknown")
    assert gave_up(doubted, "read", held=False) == End("expired", "deadline_passed")
    assert gave_up(Attempts(), "write", held=False) == End("expired", "deadline_passed")
    assert gave_up(Attempts(), "write", held=True) == End("expired", "held_too_long")
    # The code may have been used by the call whose answer was lost.
    assert answered(action(), doubted, 41050, table, NOW, 0.0)[1] == End("failed", "outcome_unknown")
    # "Already delivered" settles it.
    assert answered(action(), doubted, 41051, table, NOW, 0.0)[1] == End("already_done", "already_welcomed")
    # Being busy does not.
    busy, _ = answered(action(), doubted, -1, table, NOW, 0.0)
    assert gave_up(busy, "write", held=False) == End("failed", "outcome_unknown")


replies = st.lists(
    st.one_of(
        st.sampled_from([0, -1, 40001, 40014, 41050, 41051, 41096, 45009, 45033, 45036, 84061, 40096, 60020, 6000]),
        st.integers(-5, 100_000),
        st.just("refused"),
        st.just("silence"),
    ),
    max_size=60,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(replies=replies, jitter=st.floats(0, 0.999), age=st.integers(0, 120_000))
def test_whatever_wecom_answers_an_action_ends_in_the_closed_set(
    table: ErrorTable, action: MakeAction, replies: list[int | str], jitter: float, age: int
) -> None:
    work = action(deadline_ms=0)
    attempts, end, calls = Attempts(), None, 0
    decisions: list[Decision] = []
    for reply in replies:
        if isinstance(reply, int):
            attempts, decision = answered(work, attempts, reply, table, work.created_ms + age, jitter)
            calls += 1
        else:
            attempts, decision = unanswered(attempts, sent=reply == "silence", jitter=jitter)
            calls += reply == "silence"
        assert attempts.calls == calls
        decisions.append(decision)
        if isinstance(decision, End):
            end = decision
            break
        if isinstance(decision, Again | SlowDown):
            assert 0 <= decision.delay_ms <= 60_000
    end = end or gave_up(attempts, "write", held=False)
    assert end.detail in DETAILS
    if end.status == "done":
        assert attempts.errcode == 0
        assert calls
    if end.status == "expired" and end.detail != "code_expired":
        assert not attempts.in_doubt
    if end.status == "failed" and end.detail == "outcome_unknown":
        assert "silence" in replies
    assert decisions.count(RenewToken()) <= 1
    assert sum(isinstance(decision, SlowDown) for decision in decisions) <= 9


def test_every_end_of_the_error_table_is_described(table: ErrorTable) -> None:
    for code in table.codes:
        rule = table.rule(code, "externalcontact/send_welcome_msg")
        assert rule.action in ("ok", "wait") or rule.detail in DETAILS
