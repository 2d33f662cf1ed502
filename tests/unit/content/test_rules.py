"""Rules are dated data: what is wrong with a file is said with file, line and field, and yesterday stays yesterday."""

from __future__ import annotations

from pathlib import Path

import pytest

from siyu.content import FAMILIES, ContentError, ContentRules, default_folder, lint, load_rules, parse_rules

DAY = 86_400_000
NOVEMBER_1 = 1_793_462_400_000
"""2026-11-01 00:00 in Asia/Shanghai."""

BASE = {
    "characters.yaml": """kind: characters
versions:
  - {effective_from: 2026-11-01, source: ours, look_alike: {x: х}, variant: {转: 轉}, domains: [com]}
""",
    "links.yaml": """kind: links
versions:
  - {effective_from: 2026-11-01, source: ours, shorteners: [t.cn], parameters: [url]}
""",
    "payloads.yaml": """kind: payloads
versions:
  - effective_from: 2026-11-01
    source: ours
    endpoints: {message/send: {channel: message, texts: [text.content]}}
""",
    "words.yaml": """kind: words
versions:
  - effective_from: 2026-11-01
    source: ours
    lists: {gain: [领, 红包]}
""",
}
RULE = """kind: rules
rules:
  - id: clickbait.shock
    family: clickbait
    severity: warn
    effective_from: 2026-11-01
    source: our reading
    catches: shock
    message: {zh: 震惊体, en: shock}
    match: ['震惊~3<gain>']
"""


def _parse(**files: str) -> ContentRules:
    return parse_rules(BASE | {"rules.yaml": RULE} | {f"{name}.yaml": text for name, text in files.items()})


def _refusal(**files: str) -> str:
    with pytest.raises(ContentError) as refused:
        _parse(**files)
    return str(refused.value)


def _matches(rules: ContentRules, at_ms: int, text: str) -> bool:
    return bool(lint(text, rules.at(at_ms)))


def test_the_shipped_rules_cover_every_family_and_say_where_each_comes_from(shipped: ContentRules) -> None:
    in_force = shipped.at(NOVEMBER_1 + DAY)

    assert {rule.family for rule in in_force.rules} == set(FAMILIES)
    assert all(rule.source and rule.catches and rule.message_zh and rule.message_en for rule in in_force.rules)
    assert [rule.id for rule in in_force.rules] == sorted({rule.id for rule in in_force.rules})


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("severity: warn", "severity: loud", "rules.yaml:5: rules[0].severity: "),
        ("catches: shock", "catches: shock\n    colour: red", "rules.yaml:9: rules[0]: Object contains unknown field"),
        ("family: clickbait", "family: bait", "rules.yaml:4: rules[0].family: "),
        ("id: clickbait.shock", "id: medical.shock", "rules.yaml:3: rules[0].id: 'medical.shock' is not clickbait."),
        ("id: clickbait.shock", "id: clickbait", "rules.yaml:3: rules[0].id: "),
        ("effective_from: 2026-11-01", "effective_from: soon", "rules.yaml:6: rules[0].effective_from: "),
        ("source: our reading", "source: ' '", "rules.yaml:7: rules[0].source: is empty"),
        ("match: ['震惊~3<gain>']", "match: ['震惊', '(转']", "rules.yaml:10: rules[0].match[1]: '(转' at character 3"),
        ("match: ['震惊~3<gain>']", "match: ['a*']", "rules.yaml:10: rules[0].match[0]: 'a*' at character 2"),
        ("match: ['震惊~3<gain>']", "match: ['轉']", "rules.yaml:10: rules[0].match[0]: '轉' never stands in a text"),
        ("match: ['震惊~3<gain>']", "match: ['<nobody>']", "rules.yaml:10: rules[0].match[0]: "),
        ("match: ['震惊~3<gain>']", "match: ['~60~60~60领']", "costs up to"),
        ("match: ['震惊~3<gain>']", "link: [dubious]", "rules.yaml:10: rules[0].link"),
        ("    match: ['震惊~3<gain>']\n", "", "rules.yaml:3: rules[0]: clickbait.shock needs exactly one of match"),
        ("match: ['震惊~3<gain>']", "match: [震惊]\n    link: [short]", "needs exactly one of match"),
        (
            "match: ['震惊~3<gain>']",
            "match: [震惊]\n    until: 2026-11-01",
            "rules.yaml:11: rules[0].until: ends before",
        ),
        (
            "match: ['震惊~3<gain>']",
            "match: [震惊]\n    match: [惊]",
            "rules.yaml:11: match: stands in line 10 already",
        ),
        ("message: {zh: 震惊体, en: shock}", "message: {zh: 震惊体}", "rules.yaml:9: rules[0].message: "),
        ("kind: rules", "kind: laws", "rules.yaml:1: kind: "),
        ("kind: rules", "kind: rules\nnote: x", "rules.yaml:2: Object contains unknown field"),
        ("rules:\n", "rules: [\n", "rules.yaml:"),
        ("severity: warn", "severity: \x07", "rules.yaml:5: not YAML"),
    ],
)
def test_a_rule_nobody_can_use_is_refused_with_its_place(old: str, new: str, place: str) -> None:
    assert place in _refusal(rules=RULE.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "place"),
    [
        ("words", "领, 红包", "领, 领", "words.yaml:5: versions[0].lists.gain[1]: '领' stands in the list already"),
        ("words", "领, 红包", "领, 紅 包", "words.yaml:5: versions[0].lists.gain[1]: '紅 包' never stands in a text"),
        ("words", "[领, 红包]", "[]", "words.yaml:5: versions[0].lists.gain: is empty"),
        ("characters", "{x: х}", "{xy: х}", "characters.yaml:3: versions[0].look_alike.xy: "),
        (
            "characters",
            "{x: х}",
            "{x: х, y: х}",
            "characters.yaml:3: versions[0].look_alike.y: 'х' stands for something",
        ),
        ("links", "[t.cn]", "[T.cn]", "links.yaml:3: versions[0].shorteners[0]: "),
        ("links", "[url]", "[url, url]", "links.yaml:3: versions[0].parameters[1]: "),
        ("payloads", "channel: message", "channel: letter", "payloads.yaml:5: "),
        ("payloads", "text.content", "text..content", "payloads.yaml:5: "),
    ],
)
def test_so_is_other_data(name: str, old: str, new: str, place: str) -> None:
    assert place in _refusal(**{name: BASE[f"{name}.yaml"].replace(old, new)})


def test_one_rule_twice_from_one_day_is_refused() -> None:
    again = RULE.split("rules:\n", 1)[1]
    assert "clickbait.shock stands twice from 2026-11-01" in _refusal(rules=RULE + again)


def test_two_versions_of_words_from_one_day_are_refused() -> None:
    again = BASE["words.yaml"].split("versions:\n", 1)[1]
    assert "words.yaml:6: versions[1].effective_from: a second version" in _refusal(words=BASE["words.yaml"] + again)


def test_a_missing_kind_is_refused() -> None:
    with pytest.raises(ContentError, match="no file of kind links"):
        parse_rules({name: text for name, text in BASE.items() if name != "links.yaml"})


def test_a_change_counts_from_its_midnight_in_shanghai_and_the_past_stays() -> None:
    later = RULE.split("rules:\n", 1)[1].replace("2026-11-01", "2026-11-12").replace("震惊~3<gain>", "惊呆")
    rules = _parse(rules=RULE + later)
    change = NOVEMBER_1 + 11 * DAY

    assert _matches(rules, change - 1, "震惊领")
    assert not _matches(rules, change - 1, "惊呆")
    assert not _matches(rules, change, "震惊领")
    assert _matches(rules, change, "惊呆")
    assert rules.next_change_ms(change - 1) == change
    assert rules.next_change_ms(change) is None
    assert rules.at(change - 1).revision == rules.at(change).revision == rules.revision


def test_a_rule_ends_at_its_until() -> None:
    rules = _parse(rules=RULE.replace("match:", "until: 2026-11-03\n    match:"))

    assert _matches(rules, NOVEMBER_1 + 2 * DAY - 1, "震惊领")
    assert not _matches(rules, NOVEMBER_1 + 2 * DAY, "震惊领")


def test_a_list_of_words_changes_for_the_rules_that_name_it() -> None:
    later = BASE["words.yaml"].split("versions:\n", 1)[1].replace("2026-11-01", "2026-11-05").replace("红包", "现金")
    rules = _parse(words=BASE["words.yaml"] + later)

    assert _matches(rules, NOVEMBER_1, "震惊红包")
    assert not _matches(rules, NOVEMBER_1 + 4 * DAY, "震惊红包")
    assert _matches(rules, NOVEMBER_1 + 4 * DAY, "震惊现金")


def test_before_the_first_day_the_first_rules_count() -> None:
    assert _matches(_parse(), 0, "震惊领")


def test_the_revision_is_that_of_the_content() -> None:
    assert _parse().revision == _parse().revision
    assert _parse().revision != _parse(rules=RULE.replace("severity: warn", "severity: block")).revision


def test_a_rule_for_one_channel_is_silent_in_others() -> None:
    in_force = _parse(rules=RULE.replace("match:", "channels: [moment]\n    match:")).at(NOVEMBER_1)

    assert lint("震惊领", in_force, channel="moment")
    assert lint("震惊领", in_force, channel="any")
    assert not lint("震惊领", in_force, channel="welcome")


def test_the_folder_is_read_like_the_texts(tmp_path: Path) -> None:
    for path in default_folder().glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    assert load_rules(tmp_path).revision == load_rules(default_folder()).revision


def test_an_empty_folder_and_a_file_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="no content rules"):
        load_rules(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ContentError, match=r"a\.yaml: not UTF-8"):
        load_rules(tmp_path)
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(ContentError, match=r"a\.yaml:1: the file is empty"):
        load_rules(tmp_path)
