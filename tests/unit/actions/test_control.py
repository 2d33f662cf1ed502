"""Words of operators: one thing has one id, and every word bears a name and a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.actions import control
from siyu.actions.errors import Invalid
from siyu.events import ControlRecord, codec

NOW = 1_790_913_600_000
WHO = {"reason": "complaints", "author": "li", "wall_ms": NOW}
SCOPE = st.fixed_dictionaries(
    {
        "corp_id": st.sampled_from(["", "ww1", "ww2"]),
        "lane": st.sampled_from(["", "bulk", "sync"]),
        "campaign_id": st.sampled_from(["", "c1", "c2"]),
    }
)


@given(SCOPE, SCOPE)
def test_a_pause_is_the_same_one_exactly_when_it_is_about_the_same(one: dict[str, str], other: dict[str, str]) -> None:
    ids = [control.pause_record(**scope, **WHO).id for scope in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)


@given(
    SCOPE, st.tuples(st.sampled_from(["ww1", "ww2"]), st.sampled_from(["bulk", "sync"]), st.sampled_from(["c1", ""]))
)
def test_an_empty_part_of_a_word_means_every_one(scope: dict[str, str], action: tuple[str, str, str]) -> None:
    had = dict(zip(("corp_id", "lane", "campaign_id"), action, strict=True))
    covered = control.covers(control.pause_record(**scope, **WHO), **had)
    assert covered == all(scope[name] in ("", had[name]) for name in had)


def test_a_resumed_pause_has_the_id_of_the_pause_and_holds_no_more() -> None:
    pause = control.pause_record(corp_id="ww1", **WHO)
    resumed = control.resume_record(pause, reason="over", author="wang", wall_ms=NOW + 1)
    assert resumed.id == pause.id
    assert control.holds(pause, NOW)
    assert not control.holds(resumed, NOW + 1)


def test_a_pause_ends_by_itself() -> None:
    pause = control.pause_record(lane="bulk", **WHO, expires_ms=NOW + 1000)
    assert control.holds(pause, NOW + 999)
    assert not control.holds(pause, NOW + 1000)


def test_a_cancelled_campaign_stays_cancelled_and_a_cancelled_corp_may_go_on() -> None:
    campaign = control.cancel_record(campaign_id="c1", **WHO)
    corp = control.cancel_record(corp_id="ww1", **WHO)
    about = {"corp_id": "ww1", "lane": "bulk", "campaign_id": "c1"}
    assert control.takes_back(campaign, **about, appended_ms=NOW + 1_000_000)
    assert control.takes_back(corp, **about, appended_ms=NOW)
    assert not control.takes_back(corp, **about, appended_ms=NOW + 1)
    assert control.holds(campaign, NOW + 10 * control.KEPT_MS)
    assert not control.holds(corp, NOW + control.KEPT_MS)


def test_words_about_different_things_never_share_an_id() -> None:
    words = [
        control.pause_record(corp_id="x", **WHO),
        control.pause_record(campaign_id="x", **WHO),
        control.cancel_record(action_id="x", **WHO),
        control.cancel_record(corp_id="x", **WHO),
        control.cancel_record(campaign_id="x", **WHO),
        control.settle_record(action_id="x", verdict="done", **WHO),
    ]
    assert len({word.id for word in words}) == len(words)


def test_a_word_travels_unchanged() -> None:
    word = control.settle_record(action_id="a1", corp_id="ww1", verdict="not_done", **WHO)
    assert codec().decode_as(ControlRecord, codec().encode(word)) == word


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: control.cancel_record(**WHO), "action_id"),
        (lambda: control.settle_record(action_id="", verdict="done", **WHO), "action_id"),
        (lambda: control.settle_record(action_id="a", verdict="perhaps", **WHO), "as"),  # type: ignore[arg-type]
        (lambda: control.pause_record(lane="slow", **WHO), "lane"),
        (lambda: control.pause_record(corp_id="w" * 201, **WHO), "corp_id"),
        (lambda: control.pause_record(**WHO, expires_ms=NOW), "expires"),
        (lambda: control.pause_record(reason=" ", author="li", wall_ms=NOW), "reason"),
        (lambda: control.pause_record(reason="r" * 501, author="li", wall_ms=NOW), "reason"),
        (lambda: control.pause_record(reason="r", author="", wall_ms=NOW), "author"),
    ],
)
def test_a_malformed_word_is_refused_by_its_field(make: object, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        make()  # type: ignore[operator]
    assert refused.value.field == field


def test_the_executor_knows_these_words() -> None:
    """Its table and these makers meet in the topic only; they must agree on ids and on what a word may say."""
    from services.executor.control import ControlTable

    table = ControlTable()
    pause = control.pause_record(corp_id="ww1", lane="bulk", **WHO)
    cancel = control.cancel_record(action_id="a1", corp_id="ww1", **WHO)
    settle = control.settle_record(action_id="a2", verdict="done", **WHO)
    for word in (pause, cancel, settle):
        table.apply(word.id.encode(), codec().encode(word))
    assert table.paused("ww1", "bulk", "c1", NOW) == pause.id
    assert table.cancelled("a1") == cancel
    assert table.settled("a2") == settle
    resumed = control.resume_record(pause, **WHO)
    table.apply(resumed.id.encode(), codec().encode(resumed))
    assert table.paused("ww1", "bulk", "c1", NOW) is None
