"""Finds what may not be sent. Pure: a text and the rules in force in, findings out; never raises, for any text.

The time is linear in the length of the text: normalising is, and every pattern has a bounded cost at each place
(:mod:`siyu.content.patterns`). Most patterns are not even tried: a text without their words is passed over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from siyu.content.links import LinkFault, faults
from siyu.content.normal import Normal
from siyu.content.patterns import Pattern
from siyu.content.rules import Channel, Family, Rule, RuleSet, Severity

_CONTEXT = 24
"""Characters before and behind a match that its exceptions see."""


@dataclass(frozen=True)
class Finding:
    """One objection. ``matched`` is personal when the text is: show it to operators, never log it."""

    rule_id: str
    family: Family
    severity: Severity
    span: tuple[int, int]
    """Of the original text: ``text[start:end] == matched``."""
    matched: str
    message_zh: str
    message_en: str
    path: str = ""
    """Where in a payload the text stands (``$.text.content``); empty for a bare text."""


def lint(text: str, rules: RuleSet, channel: Channel = "any") -> list[Finding]:
    """Everything the rules object to, in the order of the text. ``channel``: where the text will be read; ``any``
    applies every rule. Matches of one rule that overlap are one finding."""
    normal = rules.characters.normal(text)
    present = rules.words.present(normal.text)
    found: list[Finding] = []
    wrong_links: list[tuple[tuple[int, int], list[LinkFault]]] | None = None
    for rule in rules.by_channel[channel]:
        spans: list[tuple[int, int]] = []
        if rule.links:
            if wrong_links is None:
                wrong_links = [((s, e), faults(text[s:e], rules.links)) for s, e in normal.links]
            spans.extend(span for span, wrong in wrong_links if not rule.links.isdisjoint(wrong))
        for pattern in rule.match:
            if pattern.may_match(present):
                spans.extend(normal.span(*match) for match in _matches(pattern, rule, normal, present))
        for pattern in rule.disguised:
            if pattern.may_match(present):
                for match in _matches(pattern, rule, normal, present):
                    start, end = normal.span(*match)
                    if normal.interrupted(*match) or rules.characters.disguised(text[start:end]):
                        spans.append((start, end))
        found.extend(_finding(rule, text, span) for span in _joined(spans))
    found.sort(key=lambda finding: (finding.span, finding.rule_id))
    return found


def lint_link(address: str, rules: RuleSet, channel: Channel = "any") -> list[Finding]:
    """What the rules object to in one address, such as a link attachment's."""
    wrong = faults(address, rules.links)
    return [
        _finding(rule, address, (0, len(address)))
        for rule in rules.by_channel[channel]
        if address and not rule.links.isdisjoint(wrong)
    ]


def _finding(rule: Rule, text: str, span: tuple[int, int]) -> Finding:
    return Finding(rule.id, rule.family, rule.severity, span, text[span[0] : span[1]], rule.message_zh, rule.message_en)


def _matches(pattern: Pattern, rule: Rule, normal: Normal, present: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Matches no exception speaks for, as spans of the normal text."""
    text = normal.text
    excepted: list[tuple[int, int]] | None = None
    at = 0
    while match := pattern.regex.search(text, at):
        start, end = match.span()
        if excepted is None:
            excepted = _joined([m.span() for p in rule.unless if p.may_match(present) for m in p.regex.finditer(text)])
        if _overlaps(start, end, excepted) or _excepted(start, end, rule, text):
            at = start + 1
        else:
            yield start, end
            at = end


def _overlaps(start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    """Whether one of these spans, which are sorted and apart, shares a character with start to end."""
    before_end = bisect_left(spans, (end, end))
    return before_end > 0 and spans[before_end - 1][1] > start


def _excepted(start: int, end: int, rule: Rule, text: str) -> bool:
    before, behind = text[max(0, start - _CONTEXT) : start], text[end : end + _CONTEXT]
    return any(pattern.regex.search(before) for pattern in rule.unless_before) or any(
        pattern.regex.search(behind) for pattern in rule.unless_after
    )


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping spans as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
