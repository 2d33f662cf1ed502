"""A text is read as people read it, and every sign of it leads back to what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.content import RuleSet
from siyu.content.normal import LINK

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
CHATTY = st.text(
    st.sampled_from("转发到朋友圈领红包微信vx 9.!，。\n\u200b\u0336❤️👨‍👩‍👧①Ａ／轉發㎏…https://t.cn/a"), max_size=80
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ＶＩＰ１００％", "vip100%"),
        ("轉發朋友圈", "转发朋友圈"),
        ("转🌹发", "转发"),
        ("转 发", "转发"),
        ("转\u200b\u2060\ufeff发", "转发"),
        ("转\u0336发\u0336", "转发"),
        ("转，发，朋，友", "转发朋友"),
        ("转\n发\n朋\n友", "转发朋友"),
        ("好的，转发", "好的,转发"),
        ("下雨了\n记得带伞", "下雨了\n记得带伞"),
        ("！！！！", "!"),
        ("9.9元 / 斤", "9.9元斤"),
        ("νх", "vx"),
        ("𝐯𝐱", "vx"),
        ("①②③", "123"),
        ("二〇二六", "二0二六"),
        ("看 https://shop.example.com/a?b=1。", f"看{LINK}。"),
        ("2.10.3版", "2.10.3版"),
        ("例 t.cn/abc 例", f"例{LINK}例"),
        ("㎏", "kg"),
        ("\u3164", ""),
    ],
)
def test_a_text_is_read_as_a_person_reads_it(rules: RuleSet, written: str, read: str) -> None:
    assert rules.characters.normal(written).text == read


@given(text=ANY_TEXT | CHATTY)
def test_the_way_back_never_runs_backwards(rules: RuleSet, text: str) -> None:
    normal = rules.characters.normal(text)

    assert len(normal.text) == len(normal.starts) == len(normal.ends)
    assert normal.starts == sorted(normal.starts)
    assert normal.ends == sorted(normal.ends)
    assert all(0 <= start < end <= len(text) for start, end in zip(normal.starts, normal.ends, strict=True))
    assert all(0 <= start < end <= len(text) for start, end in normal.links)


@given(text=CHATTY)
def test_reading_what_was_read_changes_nothing_but_addresses_and_lonely_signs(rules: RuleSet, text: str) -> None:
    once = rules.characters.normal(text).text
    if LINK not in once:
        again = rules.characters.normal(once).text
        assert len(again) <= len(once)
        assert set(again) <= set(once)


@given(text=ANY_TEXT)
def test_a_sign_stands_for_a_character_that_becomes_it(rules: RuleSet, text: str) -> None:
    characters = rules.characters
    normal = characters.normal(text)
    for sign, start in zip(normal.text, normal.starts, strict=True):
        assert sign == LINK or sign in characters.form(text[start])


def test_what_is_between_the_signs_is_remembered(rules: RuleSet) -> None:
    normal = rules.characters.normal("转发，转❤发")

    assert not normal.interrupted(0, 2)
    assert normal.interrupted(3, 5)
