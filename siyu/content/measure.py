"""How good the rules are on labelled sentences: recall and precision of every family and rule, false alarms over all.

*Recall*: of the objections a reader would make (a sentence and a family), the share the linter makes. *False alarms*:
of the sentences without objection, the share the linter objects to. *Precision*: of the linter's objections, the share
a reader would make. A rule's recall is its share of its family's sentences: rules of a family divide the work, so the
family's recall is what counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from siyu.content.errors import ContentError
from siyu.content.files import read_yaml
from siyu.content.lint import lint
from siyu.content.rules import FAMILIES, Family, Rule, RuleSet


class Sentence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One labelled sentence."""

    text: str
    expected: list[Family] = msgspec.field(name="is")
    """What a careful reader would object to; empty: nothing."""
    evasion: str = ""
    """How it hides, for readers of the corpus."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sentences: list[Sentence]


@dataclass(frozen=True)
class Score:
    """Sentences counted for one family or one rule."""

    name: str
    labelled: int
    """With this family among the labels."""
    found: int
    """Of these, objected to."""
    wrong: int
    """Objected to without the label."""

    @property
    def recall(self) -> float:
        """0 to 1; 1 when there is nothing to find."""
        return self.found / self.labelled if self.labelled else 1.0

    @property
    def precision(self) -> float:
        """0 to 1; 1 when nothing was objected to."""
        return self.found / (self.found + self.wrong) if self.found + self.wrong else 1.0


@dataclass(frozen=True)
class Measurement:
    """Of one set of sentences."""

    sentences: int
    clean: int
    clean_objected: int
    """Sentences without a label that got any finding."""
    families: tuple[Score, ...]
    rules: tuple[Score, ...]
    missed: tuple[tuple[int, Family], ...]
    """Index of a sentence, and the label nothing was found for."""
    mistaken: tuple[tuple[int, str], ...]
    """Index of a sentence, and the rule whose family is not among the labels."""

    @property
    def recall(self) -> float:
        """Over all labels, 0 to 1."""
        labelled = sum(score.labelled for score in self.families)
        return sum(score.found for score in self.families) / labelled if labelled else 1.0

    @property
    def precision(self) -> float:
        """Over all objections (a sentence and a family), 0 to 1."""
        found, wrong = (sum(getattr(score, name) for score in self.families) for name in ("found", "wrong"))
        return found / (found + wrong) if found + wrong else 1.0

    @property
    def false_alarms(self) -> float:
        """Share of clean sentences objected to, 0 to 1."""
        return self.clean_objected / self.clean if self.clean else 0.0


def load_corpus(path: Path) -> list[Sentence]:
    """Reads one labelled file. Raises ContentError naming file, line and field."""
    return read_yaml(path).read(_File).sentences


def measure(sentences: Sequence[Sentence], rules: RuleSet) -> Measurement:
    """Lints every sentence with every rule (channel ``any``)."""
    labelled: Counter[str] = Counter()
    found: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: list[tuple[int, Family]] = []
    mistaken: list[tuple[int, str]] = []
    clean_objected = 0
    for index, sentence in enumerate(sentences):
        findings = lint(sentence.text, rules)
        hit_rules = {finding.rule_id: finding.family for finding in findings}
        labelled.update(sentence.expected)
        for name, family in (*((f, f) for f in set(hit_rules.values())), *hit_rules.items()):
            (found if family in sentence.expected else wrong)[name] += 1
        missed += [(index, family) for family in sentence.expected if family not in hit_rules.values()]
        mistaken += [(index, rule) for rule, family in sorted(hit_rules.items()) if family not in sentence.expected]
        clean_objected += bool(findings) and not sentence.expected
    return Measurement(
        len(sentences),
        sum(not sentence.expected for sentence in sentences),
        clean_objected,
        tuple(Score(f, labelled[f], found[f], wrong[f]) for f in FAMILIES if f != "payload"),
        tuple(Score(r.id, labelled[r.family], found[r.id], wrong[r.id]) for r in _measured(rules)),
        tuple(missed),
        tuple(mistaken),
    )


def _measured(rules: RuleSet) -> Iterable[Rule]:
    return (rule for rule in rules.rules if not rule.on_unreadable)


def default_corpus() -> Path:
    """The labelled sentences of this checkout."""
    return Path(__file__).resolve().parents[2] / "tests" / "corpus" / "content"


def measure_folder(folder: Path, rules: RuleSet) -> dict[str, Measurement]:
    """Every ``*.yaml`` of the folder by its name, and ``all`` of them together. Raises ContentError."""
    corpora = {path.stem: load_corpus(path) for path in sorted(folder.glob("*.yaml"))}
    if not corpora:
        raise ContentError(f"{folder}: no labelled sentences (*.yaml) there")
    together = [sentence for sentences in corpora.values() for sentence in sentences]
    return {name: measure(sentences, rules) for name, sentences in {**corpora, "all": together}.items()}
