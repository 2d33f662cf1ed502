"""What is found, where, and what is let through; whatever the text, the linter answers."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.content import RuleSet, lint, lint_link
from siyu.content.measure import Sentence, default_corpus, load_corpus

SENTENCES = [s for path in sorted(default_corpus().glob("*.yaml")) for s in load_corpus(path)]
OBJECTED = [s for s in SENTENCES if s.expected]
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


def _ids(text: str, rules: RuleSet) -> set[str]:
    return {finding.rule_id for finding in lint(text, rules)}


def test_a_finding_points_at_what_was_written(rules: RuleSet) -> None:
    text = "您好！转🌹发🌹到群里就送。"
    found = [f for f in lint(text, rules) if f.rule_id == "evasive.hidden_word"]

    assert [(f.span, f.matched, f.severity) for f in found] == [((3, 6), "转🌹发", "warn")]
    assert found[0].message_zh
    assert found[0].message_en


@pytest.mark.parametrize(
    "text",
    [
        "不需要转发，直接领取",
        "无需关注，扫码即领发票",
        "不能代替药物",
        "市第一医院",
        "我们第一时间送到",
        "国家级博物馆门票",
        "安徽信阳毛尖",
        "VX-200型净水器滤芯",
        "V领毛衣",
        "卫星电视",
        "👨‍👩‍👧 一家人",
        "",
    ],
)
def test_what_only_looks_like_it_passes(rules: RuleSet, text: str) -> None:
    assert lint(text, rules) == []


@given(text=st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_text_gets_an_answer_whose_spans_lie_in_it(rules: RuleSet, text: str) -> None:
    for finding in lint(text, rules):
        start, end = finding.span
        assert 0 <= start < end <= len(text)
        assert text[start:end] == finding.matched


@given(parts=st.lists(st.sampled_from(OBJECTED), min_size=1, max_size=3), glue=st.sampled_from(["\n", "。", "🎉", " "]))
def test_spans_lie_in_the_text_when_there_are_many_findings(rules: RuleSet, parts: list[Sentence], glue: str) -> None:
    text = glue.join(part.text for part in parts)
    found = lint(text, rules)

    assert found
    assert all(text[f.span[0] : f.span[1]] == f.matched for f in found)
    assert [f.span for f in found] == sorted(f.span for f in found)
    for rule_id in {f.rule_id for f in found}:
        spans = [f.span for f in found if f.rule_id == rule_id]
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


@given(data=st.data(), sentence=st.sampled_from(OBJECTED))
def test_invisible_characters_hide_nothing(rules: RuleSet, data: st.DataObject, sentence: Sentence) -> None:
    places = data.draw(st.lists(st.integers(0, len(sentence.text)), max_size=10).map(sorted))
    hidden, at = [], 0
    for place in places:
        hidden += [sentence.text[at:place], data.draw(st.sampled_from(INVISIBLE))]
        at = place
    assert _ids(sentence.text, rules) <= _ids("".join((*hidden, sentence.text[at:])), rules)


@pytest.mark.parametrize("sentence", OBJECTED, ids=range(len(OBJECTED)))
def test_full_width_letters_hide_nothing(rules: RuleSet, sentence: Sentence) -> None:
    wide = "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in sentence.text)
    assert _ids(sentence.text, rules) <= _ids(wide, rules)


@pytest.mark.parametrize("between", ["❤️", " ", "*", "·", "~", "\u200b", "｜", "→"])
def test_symbols_between_the_signs_hide_nothing_and_are_found_themselves(rules: RuleSet, between: str) -> None:
    text = between.join("转发到朋友圈领红包")
    assert {"induced_sharing.reward_for_share", "evasive.hidden_word"} <= _ids(text, rules)


@pytest.mark.parametrize(
    "text",
    [
        "没有门槛，转发朋友圈领红包",
        "没有门槛转发朋友圈领红包",
        "别忘了转发朋友圈领红包",
        "不用排队，分享到朋友圈就送",
        "转发给您的好友领红包",
        "分享您的使用体验到朋友圈，领20元",
        "邀请您的好友注册，得10元红包",
        "不用转发，关注公众号领红包",
        "第一时间抢，全国销量第一",
        "国家级博物馆门票和国家级品质",
        "安徽信阳毛尖，加徽信聊",
    ],
)
def test_a_negation_or_a_harmless_neighbour_excuses_nothing_else(rules: RuleSet, text: str) -> None:
    assert "block" in {finding.severity for finding in lint(text, rules)}


@pytest.mark.parametrize(
    "text",
    ["不需要转发朋友圈就能领", "请勿转发领取码", "无须关注公众号即可领券", "不用点关注，直接领", "本品不能代替药物"],
)
def test_a_negation_excuses_what_it_negates(rules: RuleSet, text: str) -> None:
    assert lint(text, rules) == []


def test_sentences_are_not_read_across_their_ends(rules: RuleSet) -> None:
    assert lint("图片我转发过来了。优惠券在卡包里可以领", rules) == []


@pytest.mark.parametrize(
    "unit",
    [
        "转发", "第一次", "拉人", "转🌹", "最治病免费群加微信喝", "邀请好友", "99%的人", "转，", "不", "a.", "加加v",
        "好友注册", "国家级博物馆", "https://t.cn/?url=", "\u200b", "①", "[", "发满5群", "(", "9" * 30,
    ],
)  # fmt: skip
def test_eight_times_the_text_never_costs_much_more_than_eight_times_the_time(rules: RuleSet, unit: str) -> None:
    """Sizes are compared with each other: a quadratic search needs 64 times as long, an exponential one never ends."""

    def cost(text: str) -> float:
        tries = []
        for _ in range(5):
            begun = time.thread_time()
            lint(text, rules)
            tries.append(time.thread_time() - begun)
        return min(tries)

    small = unit * (4_000 // len(unit))
    assert cost(small * 8) < 32 * max(cost(small), 0.0005)


def test_a_rule_may_be_for_some_channels_only(rules: RuleSet) -> None:
    assert {rule.id for rule in rules.by_channel["welcome"]} <= {rule.id for rule in rules.by_channel["any"]}
    assert lint("转发到朋友圈领红包", rules, channel="welcome") == lint("转发到朋友圈领红包", rules)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://shop.example.com/item/1?from=wecom#top", []),
        ("https://t.cn/A6", ["redirect.short_link"]),
        ("https://T\u200b.CN/A6", ["redirect.short_link"]),
        ("https://ｔ．ｃｎ/A6", ["redirect.short_link"]),
        ("https://not-t.cn/A6", []),
        ("https://sub.t.cn/A6", ["redirect.short_link"]),
        ("http://shop.example.com/", ["redirect.not_https"]),
        ("weixin://dl/business", ["redirect.not_https"]),
        ("https://1.2.3.4/x", ["redirect.raw_address"]),
        ("https://3232235777/x", ["redirect.raw_address"]),
        ("https://0x7f.1/x", ["redirect.raw_address"]),
        ("https://[::1]/x", ["redirect.raw_address"]),
        ("https://a.example/go?url=https%3A%2F%2Fb.example", ["redirect.carries_address"]),
        ("https://a.example/go?u=https%25253A%25252F%25252Fb.example", ["redirect.carries_address"]),
        ("https://a.example/go?to=b.example/x", ["redirect.carries_address"]),
        ("https://a.example/go?to=home", []),
        ("https://a.example/go?u=1.5", []),
        ("https://a.example@b.example/", ["redirect.disguised_host"]),
        ("https://exаmple.com/", ["redirect.disguised_host"]),
        ("https://xn--fiqs8s.example/", ["redirect.disguised_host"]),
        ("", []),
    ],
)
def test_addresses(rules: RuleSet, address: str, expected: list[str]) -> None:
    assert [finding.rule_id for finding in lint_link(address, rules)] == expected


@given(address=st.text(st.characters(exclude_categories=()), max_size=200) | st.text("htps:/.@#?=&%[]a1", max_size=60))
def test_any_address_gets_an_answer(rules: RuleSet, address: str) -> None:
    assert all(finding.matched == address for finding in lint_link(address, rules))


def test_the_corpus_lies_where_the_command_looks(request: pytest.FixtureRequest) -> None:
    assert default_corpus() == Path(request.config.rootpath) / "tests" / "corpus" / "content"
