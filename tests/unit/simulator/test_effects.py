"""Planted reactions: as probable as they are planted, the same for the same touch, and found back in the truth."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.scenario.effects import DAY_S, Churn, Complaints, Effects, Strategy, Timing, reaction

EFFECTS = Effects(
    reach_buy_lift=0.05,
    reply=0.1,
    strategies=(
        Strategy(mark="#A", buy_lift=0.02, reply_lift=0.1),
        Strategy(mark="#B", buy_lift=0.10, churn_lift=0.05),
        Strategy(mark="#C", buy_lift=-1.0),
    ),
    kinds={"welcome": 0.5},
    fatigue=0.5,
    churn=Churn(first=0.01, each=0.02),
    complaints=Complaints(first=0.001, each=0.01),
)


def draw(number: int, *, kind: str = "mass", content: str = "", before: int = 0, effects: Effects = EFFECTS):
    return reaction(effects, random.Random(f"touch|{number}"), kind=kind, content=content, before=before)


def share(what: str, count: int = 20_000, **touch) -> float:
    return sum(getattr(draw(number, **touch), what) is not None for number in range(count)) / count


@pytest.mark.parametrize(
    ("what", "touch", "planted"),
    [
        ("buy_s", {}, 0.05),
        ("buy_s", {"content": "新品 #A"}, 0.07),
        ("buy_s", {"content": "#B"}, 0.15),
        ("buy_s", {"content": "#C"}, 0.0),
        ("buy_s", {"content": "#B", "kind": "welcome"}, 0.075),
        ("buy_s", {"content": "#B", "before": 2}, 0.0375),
        ("reply_s", {"content": "#A"}, 0.2),
        ("delete_s", {}, 0.01),
        ("delete_s", {"before": 3}, 0.07),
        ("delete_s", {"content": "#B", "before": 3}, 0.12),
        ("complain_s", {"before": 5}, 0.051),
    ],
)
def test_reactions_are_as_probable_as_planted(what, touch, planted):
    error = math.sqrt(planted * (1 - planted) / 20_000)
    assert abs(share(what, **touch) - planted) <= 4 * error


def test_the_first_strategy_whose_mark_is_in_the_text_counts():
    assert EFFECTS.strategy_of("#B before #A") is EFFECTS.strategies[0]
    assert EFFECTS.strategy_of("plain") is None


def test_reach_and_strategy_can_be_told_apart():
    bought = {content: share("buy_s", content=content) for content in ("", "#A", "#B")}
    assert bought["#A"] - bought[""] == pytest.approx(0.02, abs=0.008)
    assert bought["#B"] - bought[""] == pytest.approx(0.10, abs=0.011)


@given(st.integers(0, 10**6), st.integers(0, 20))
def test_a_stronger_effect_moves_no_other_outcome(number, before):
    stronger = Effects(**{**{f: getattr(EFFECTS, f) for f in EFFECTS.__struct_fields__}, "reach_buy_lift": 0.5})
    weak, strong = draw(number, before=before), draw(number, before=before, effects=stronger)
    assert (weak.reply_s, weak.delete_s, weak.complain_s) == (strong.reply_s, strong.delete_s, strong.complain_s)
    if weak.buy_s is not None:
        assert weak.buy_s == strong.buy_s


@given(st.integers(0, 10**6), st.text(max_size=10), st.integers(0, 1_000))
def test_any_touch_has_a_reaction_in_the_future_and_the_same_one_again(number, content, before):
    drawn = draw(number, content=content, before=before)
    assert drawn == draw(number, content=content, before=before)
    assert all(s is None or s >= 1 for s in (drawn.reply_s, drawn.buy_s, drawn.delete_s, drawn.complain_s))


def test_late_purchases_come_between_the_planted_days():
    effects = Effects(reach_buy_lift=1.0, timing=Timing(late_share=0.3, late_days=(8.0, 60.0), buy_median_s=3_600))
    drawn = [draw(number, effects=effects) for number in range(5_000)]
    late = [d.buy_s for d in drawn if d.late and d.buy_s]
    assert len(late) / 5_000 == pytest.approx(0.3, abs=0.03)
    assert min(late) >= 8 * DAY_S
    assert max(late) <= 60 * DAY_S
    soon = sorted(d.buy_s for d in drawn if not d.late and d.buy_s)
    assert soon[len(soon) // 2] == pytest.approx(3_600, rel=0.1)


def test_probabilities_stay_probabilities():
    wild = Effects(
        reach_buy_lift=1.0, strategies=(Strategy(mark="x", buy_lift=1.0),), kinds={"mass": 10.0}, churn=Churn(each=1.0)
    )
    outcomes = Counter(draw(number, content="x", before=50, effects=wild).delete_s is not None for number in range(100))
    assert outcomes[True] == 100
    assert wild.buy("mass", "x", 0) == 1.0
