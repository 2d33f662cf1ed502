"""Nothing unbounded can be written, and what can be written costs at most what it says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.content import RuleSet
from siyu.content.measure import default_corpus, load_corpus
from siyu.content.patterns import MOST_WORK, Pattern, PatternError, Words, compile_pattern

WORDS = {"share": ["转发", "转", "分享到"], "gain": ["领", "红包"]}


@pytest.mark.parametrize(
    ("pattern", "text", "matched"),
    [
        ("转发", "请转发一下", "转发"),
        ("转(发|给)", "转给他", "转给"),
        ("<share>~4<gain>", "转发后可以领", "转发后可以领"),
        ("<share>~4<gain>", "转发后第二天可以领", None),
        ("<share>~9<gain>", "转发。领", None),
        ("<share>~9<gain>", "转发,可领", "转发,可领"),
        ("第[0-9]{1,3}名", "第12名", "第12名"),
        ("a.c", "abc", "abc"),
        ("a.c", "a。c", None),
        ("转发?领", "转领", "转领"),
        ("[^券]到", "券到", None),
        ("^转", "请转", None),
        ("转$", "请转", "转"),
        (r"1\+1", "1+1", "1+1"),
    ],
)
def test_the_language(pattern: str, text: str, matched: str | None) -> None:
    found = compile_pattern(pattern, WORDS).regex.search(text)
    assert (found and found[0]) == matched


@pytest.mark.parametrize(
    "pattern",
    [
        "a*", "a+", "(a+)+", "(a|b", "a)", "[ab", "<nobody>", "a{61}", "a{3,2}", "~0", "~99", "~", "", "a?", "(a|)",
        "[]", "[z-a]", "a{1", r"\w", r"(a)\1", "(?:a)", "a{0}",
        "(a{0,60}b{0,60}){0,60}c",
        "~60~60~60<gain>",
    ],
)  # fmt: skip
def test_what_is_unbounded_or_has_no_meaning_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern, WORDS)


PIECES = st.recursive(
    st.sampled_from(["a", "b", "ab", "[ab]", ".", "~2", "~3", "<w>"]),
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})")
        | st.tuples(inner, st.sampled_from(["?", "{1,2}", "{2}"])).map(lambda two: f"({two[0]}){two[1]}")
    ),
    max_leaves=5,
)


@given(source=PIECES, text=st.text("abc", max_size=8))
def test_the_cheap_look_never_hides_a_match(source: str, text: str) -> None:
    try:
        pattern = compile_pattern(source, {"w": ["a", "ab", "c"]})
    except PatternError:
        return
    if pattern.regex.search(text):
        assert pattern.may_match(Words([pattern]).present(text))


@given(source=PIECES)
def test_the_ways_to_match_are_never_more_than_the_work_allows(source: str) -> None:
    """Counts, by trying every length, how many different ends a match at the beginning can have."""
    try:
        pattern = compile_pattern(source, {"w": ["a", "ab", "c"]})
    except PatternError:
        return
    for signs in itertools.product("abc", repeat=5):
        text = "".join(signs)
        ends = sum(pattern.regex.fullmatch(text, 0, end) is not None for end in range(len(text) + 1))
        assert ends <= pattern.work


def _all(rules: RuleSet) -> list[Pattern]:
    return [
        pattern
        for rule in rules.rules
        for group in (rule.match, rule.disguised, rule.unless, rule.unless_before, rule.unless_after)
        for pattern in group
    ]


def test_every_shipped_pattern_is_bounded_and_looked_for_only_where_its_words_stand(rules: RuleSet) -> None:
    patterns = _all(rules)
    texts = [
        rules.characters.normal(sentence.text).text
        for path in default_corpus().glob("*.yaml")
        for sentence in load_corpus(path)
    ]

    words = Words(patterns)

    assert len(patterns) > 200
    assert max(pattern.work for pattern in patterns) <= MOST_WORK
    for pattern in patterns:
        for text in texts:
            if pattern.regex.search(text):
                assert pattern.may_match(words.present(text)), pattern.source


def test_no_sentence_of_the_corpus_is_a_rule(rules: RuleSet) -> None:
    """A pattern is a way of speaking, not a sentence."""
    words = {word for pattern in _all(rules) for group in pattern.needed for word in group}
    assert max(sum("\u3400" <= sign <= "\u9fff" for sign in word) for word in words) <= 8
