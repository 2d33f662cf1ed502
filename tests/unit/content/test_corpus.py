"""The linter finds at least 95 % of what a reader objects to, and objects to at most 2 % of clean messages (R8)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from siyu.content import FAMILIES, ContentError, RuleSet, default_folder, lint, load_rules
from siyu.content.measure import Measurement, Score, default_corpus, load_corpus, measure, measure_folder
from siyu.content.page import page
from siyu.events import schemas_dir

EVASIONS = {"full-width", "emoji", "homoglyph", "spaced", "traditional", "zero-width", "punctuation", "combining"}


@pytest.fixture(scope="module")
def measured(rules: RuleSet) -> dict[str, Measurement]:
    return measure_folder(default_corpus(), rules)


@pytest.mark.parametrize("corpus", ["all", "develop", "fresh", "fresh2"])
def test_recall_and_false_alarms_keep_their_promise(measured: dict[str, Measurement], corpus: str) -> None:
    figures = measured[corpus]
    assert figures.recall >= 0.95, figures.missed
    assert figures.false_alarms <= 0.02, figures.mistaken


@pytest.mark.parametrize("corpus", ["holdout", "holdout2"])
def test_the_holdouts_too(measured: dict[str, Measurement], corpus: str) -> None:
    """Nobody looks into them while working on rules, so a failure names no sentence."""
    assert measured[corpus].recall >= 0.95
    assert measured[corpus].false_alarms <= 0.02


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "payload"])
def test_every_family_keeps_it_by_itself(measured: dict[str, Measurement], family: str) -> None:
    score = next(score for score in measured["all"].families if score.name == family)
    assert score.recall >= 0.95
    assert score.precision >= 0.95


def test_the_corpus_is_large_and_varied_enough() -> None:
    sentences = [s for path in default_corpus().glob("*.yaml") for s in load_corpus(path)]
    labels = Counter(family for s in sentences for family in s.expected)

    assert len(sentences) >= 480
    assert len({s.text for s in sentences}) == len(sentences)
    assert len(load_corpus(default_corpus() / "holdout.yaml")) >= 120
    assert all(labels[family] >= 25 for family in FAMILIES if family != "payload")
    assert 0.4 <= sum(not s.expected for s in sentences) / len(sentences) <= 0.6
    assert {s.evasion for s in sentences} - {""} == EVASIONS


def test_a_rule_that_finds_nothing_in_the_corpus_is_not_measured_and_so_not_shipped(
    measured: dict[str, Measurement],
) -> None:
    assert [score.name for score in measured["all"].rules if not score.found] == []


def test_the_measurement_counts_sentences(rules: RuleSet, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(
        "sentences:\n"
        "  - {text: 震惊！出大事了, is: [clickbait]}\n"
        "  - {text: 今天有货, is: [medical]}\n"
        "  - {text: 惊呆了, is: []}\n"
        "  - {text: 您好, is: []}\n"
    )
    figures = measure(load_corpus(tmp_path / "some.yaml"), rules)

    assert figures.recall == 0.5
    assert figures.precision == 0.5
    assert figures.false_alarms == 0.5
    assert figures.missed == ((1, "medical"),)
    assert figures.mistaken == ((2, "clickbait.shock"),)
    assert Score("clickbait", 1, 1, 1) in figures.families


def test_a_label_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("sentences:\n  - {text: a, is: [rude]}\n")
    with pytest.raises(ContentError, match=r"some\.yaml:2: sentences\[0\]\.is"):
        load_corpus(tmp_path / "some.yaml")


def test_the_welcome_that_is_shipped_may_be_sent(rules: RuleSet) -> None:
    shipped = yaml.safe_load((schemas_dir() / "rules" / "welcome.yaml").read_text(encoding="utf-8"))
    texts = [text for version in shipped["versions"] for text in version["text"].values()]

    assert texts
    assert [lint(text, rules, "welcome") for text in texts] == [[]] * len(texts)


def test_the_page_of_the_rules_is_up_to_date(
    request: pytest.FixtureRequest, rules: RuleSet, measured: dict[str, Measurement]
) -> None:
    written = (Path(request.config.rootpath) / "docs" / "content-rules.md").read_text(encoding="utf-8")
    assert written == page(rules, measured), "run: siyu content docs > docs/content-rules.md"
    assert load_rules(default_folder()).next_change_ms(1_795_276_800_000) is None
