"""Content rules: dated data, validated as a whole before any of it is used.

A folder holds files of five kinds (``kind`` in the first line): ``rules``, ``words`` (lists that patterns name),
``characters``, ``links`` and ``payloads`` (where an endpoint's payload holds what a customer reads). Everything has the
day from which it counts (Asia/Shanghai midnight), so that yesterday's decision can be evaluated again. A rule with the
same id and a later day replaces the earlier one; ``until`` ends it.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from siyu.content.errors import ContentError
from siyu.content.files import File, parse_yaml, read_yaml
from siyu.content.links import LinkFault, LinkRules
from siyu.content.normal import Characters
from siyu.content.patterns import Pattern, PatternError, Words, compile_pattern
from siyu.events import schemas_dir
from siyu.ops.dated import beijing_midnight_ms

Family = Literal[
    "induced_sharing",
    "forced_follow",
    "passcode",
    "redirect",
    "evasive",
    "clickbait",
    "medical",
    "absolute",
    "payload",
]
Severity = Literal["block", "warn"]
Channel = Literal["welcome", "message", "moment", "group_welcome", "any"]
FAMILIES: tuple[Family, ...] = get_args(Family)
CHANNELS: tuple[Channel, ...] = get_args(Channel)

V = TypeVar("V")


class _Dated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    effective_from: datetime.date
    source: str


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator is told."""

    zh: str
    en: str


class _RuleEntry(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    family: Family
    severity: Severity
    catches: str
    message: Message
    until: datetime.date | None = None
    channels: list[Channel] = []
    match: list[str] = []
    disguised: list[str] = []
    link: list[LinkFault] = []
    payload: Literal["unreadable"] | None = None
    unless: list[str] = []
    unless_before: list[str] = []
    unless_after: list[str] = []


class _WordsVersion(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    lists: dict[str, list[str]]


class _CharactersVersion(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    look_alike: dict[str, str]
    variant: dict[str, str]
    domains: list[str]


class _LinksVersion(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shorteners: list[str]
    parameters: list[str]


class Places(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an endpoint's payload holds what a customer reads. Paths: ``attachments[].link.title``."""

    channel: Channel
    texts: list[str]
    links: list[str] = []


class _PayloadsVersion(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoints: dict[str, Places]


class _Head(msgspec.Struct, frozen=True):
    kind: Literal["rules", "words", "characters", "links", "payloads"]


class _RulesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    rules: list[Any]


class _VersionsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    versions: list[Any]


@dataclass(frozen=True)
class Rule:
    """One rule in force, ready to match."""

    id: str
    family: Family
    severity: Severity
    effective_from_ms: int
    """Asia/Shanghai midnight, epoch ms."""
    until_ms: int | None
    """First instant at which it no longer counts; None: open."""
    source: str
    catches: str
    message_zh: str
    message_en: str
    channels: frozenset[Channel]
    """Empty: all."""
    match: tuple[Pattern, ...]
    disguised: tuple[Pattern, ...]
    links: frozenset[LinkFault]
    on_unreadable: bool
    unless: tuple[Pattern, ...]
    """A match that one of these overlaps is none."""
    unless_before: tuple[Pattern, ...]
    """Nor is one with this right before it."""
    unless_after: tuple[Pattern, ...]
    """Nor one with this right behind it."""


@dataclass(frozen=True)
class RuleSet:
    """Everything in force at one moment. Immutable; made once for each stretch between two changes."""

    revision: str
    """Of the files' content."""
    rules: tuple[Rule, ...]
    """In order of their ids."""
    characters: Characters
    links: LinkRules
    payloads: Mapping[str, Places]

    @cached_property
    def by_channel(self) -> Mapping[Channel, tuple[Rule, ...]]:
        """What is looked at for a channel. ``any``: every rule."""
        return {
            channel: tuple(r for r in self.rules if channel == "any" or not r.channels or channel in r.channels)
            for channel in CHANNELS
        }

    @cached_property
    def words(self) -> Words:
        """Every word a pattern needs."""
        return Words(
            pattern for rule in self.rules for group in (rule.match, rule.disguised, rule.unless) for pattern in group
        )


class ContentRules:
    """All rules of all times."""

    def __init__(self, revision: str, sets: list[tuple[int, RuleSet]]) -> None:
        self.revision = revision
        self._begins = [begins for begins, _ in sets]
        self._sets = [rules for _, rules in sets]

    def at(self, as_of_ms: int) -> RuleSet:
        """What is in force (business time, epoch ms); before the first change, the first: there is nothing older."""
        return self._sets[max(0, bisect_right(self._begins, as_of_ms) - 1)]

    def next_change_ms(self, as_of_ms: int) -> int | None:
        """When something changes next (epoch ms), or None."""
        later = bisect_right(self._begins, as_of_ms)
        return self._begins[later] if later < len(self._begins) else None


def default_folder() -> Path:
    """The rules that come with this checkout."""
    return schemas_dir() / "rules" / "content"


def load_rules(folder: Path) -> ContentRules:
    """Reads and validates every ``*.yaml`` of the folder. Raises ContentError naming file, line and field."""
    files = [read_yaml(path) for path in sorted(folder.glob("*.yaml"))]
    if not files:
        raise ContentError(f"{folder}: no content rules (*.yaml) there")
    return _build(files)


def parse_rules(texts: Mapping[str, str]) -> ContentRules:
    """The same from texts by file name, as they arrive through the topic ``config``."""
    return _build([parse_yaml(text, name) for name, text in sorted(texts.items())])


@dataclass(frozen=True)
class _At:
    """An entry and where it stands."""

    file: File
    path: str
    entry: Any

    def error(self, field: str, problem: str) -> ContentError:
        return self.file.error(f"{self.path}{field}", problem)


def _build(files: list[File]) -> ContentRules:
    entries: list[_At] = []
    versions: dict[str, list[_At]] = {"words": [], "characters": [], "links": [], "payloads": []}
    kinds: dict[str, type[_Dated]] = {
        "words": _WordsVersion,
        "characters": _CharactersVersion,
        "links": _LinksVersion,
        "payloads": _PayloadsVersion,
    }
    for file in files:
        kind = file.read(_Head).kind
        if kind == "rules":
            for index, raw in enumerate(file.read(_RulesFile).rules):
                path = f".rules[{index}]"
                entries.append(_At(file, path, file.read(_RuleEntry, raw, path)))
        else:
            for index, raw in enumerate(file.read(_VersionsFile).versions):
                path = f".versions[{index}]"
                versions[kind].append(_At(file, path, file.read(kinds[kind], raw, path)))
    for missing, found in versions.items():
        if not found:
            raise ContentError(f"{files[0].name}: no file of kind {missing} beside it")
        found.sort(key=lambda at: beijing_midnight_ms(at.entry.effective_from))
        for one, two in itertools.pairwise(found):
            if one.entry.effective_from == two.entry.effective_from:
                raise two.error(".effective_from", f"a second version of {missing} from the same day")
    for at in itertools.chain(entries, *versions.values()):
        if not at.entry.source.strip():
            raise at.error(".source", "is empty: say which rule it stands for, or that it is our reading")
    history = _history(entries)
    begins = sorted(
        {_begins(at) for found in versions.values() for at in found}
        | {_begins(at) for at in entries}
        | {beijing_midnight_ms(at.entry.until) for at in entries if at.entry.until}
    )
    digest = hashlib.sha256(repr([(file.name, file.raw) for file in files]).encode()).hexdigest()[:12]
    sets = [(begin, _rule_set(digest, begin, history, versions)) for begin in begins]
    return ContentRules(digest, sets)


def _begins(at: _At) -> int:
    return beijing_midnight_ms(at.entry.effective_from)


def _history(entries: list[_At]) -> dict[str, list[_At]]:
    """Versions of each rule by ascending date; refuses what contradicts itself."""
    history: dict[str, list[_At]] = {}
    for at in entries:
        entry = at.entry
        name, dot, rest = entry.id.partition(".")
        if not (dot and name == entry.family and rest and rest.replace("_", "").isalnum() and rest.isascii()):
            raise at.error(".id", f"{entry.id!r} is not {entry.family}.<name>")
        if entry.until and entry.until <= entry.effective_from:
            raise at.error(".until", "ends before it begins")
        matchers = [bool(entry.match), bool(entry.disguised), bool(entry.link), entry.payload is not None]
        if sum(matchers) != 1:
            raise at.error("", f"{entry.id} needs exactly one of match, disguised, link, payload")
        if not entry.message.zh.strip() or not entry.message.en.strip() or not entry.catches.strip():
            raise at.error(".message", "operators need message.zh, message.en and catches")
        for other in history.setdefault(entry.id, []):
            if other.entry.effective_from == entry.effective_from:
                raise at.error(".id", f"{entry.id} stands twice from {entry.effective_from}")
        history[entry.id].append(at)
    for dated in history.values():
        dated.sort(key=_begins)
    return history


def _rule_set(revision: str, as_of_ms: int, history: dict[str, list[_At]], versions: dict[str, list[_At]]) -> RuleSet:
    words_at, characters_at, links_at, payloads_at = (
        _newest(versions[kind], as_of_ms) for kind in ("words", "characters", "links", "payloads")
    )
    characters = _characters(characters_at)
    words = _words(words_at, characters)
    in_force = []
    for dated in history.values():
        begun = [at for at in dated if _begins(at) <= as_of_ms]
        if begun and not (begun[-1].entry.until and beijing_midnight_ms(begun[-1].entry.until) <= as_of_ms):
            in_force.append(begun[-1])
    rules = tuple(sorted((_rule(at, words, characters) for at in in_force), key=lambda rule: rule.id))
    return RuleSet(revision, rules, characters, _link_rules(links_at), _payloads(payloads_at))


def _newest(dated: list[_At], as_of_ms: int) -> _At:
    """The version in force; before the first one, the first."""
    return next((at for at in reversed(dated) if _begins(at) <= as_of_ms), dated[0])


def _characters(at: _At) -> Characters:
    tables: dict[str, dict[str, str]] = {}
    for field in ("look_alike", "variant"):
        table: dict[str, str] = {}
        for target, written in getattr(at.entry, field).items():
            if len(target) != 1:
                raise at.error(f".{field}.{target}", "the form is one character")
            for character in written:
                if character in table or character == target:
                    raise at.error(f".{field}.{target}", f"{character!r} stands for something already")
                table[character] = target
        tables[field] = table
    return Characters(tables["look_alike"], tables["variant"], frozenset(at.entry.domains))


def _words(at: _At, characters: Characters) -> dict[str, list[str]]:
    for name, words in at.entry.lists.items():
        seen: set[str] = set()
        for index, word in enumerate(words):
            normal = characters.normal(word).text
            if not word or normal != word:
                raise at.error(f".lists.{name}[{index}]", f"{word!r} never stands in a text: it is read as {normal!r}")
            if word in seen:
                raise at.error(f".lists.{name}[{index}]", f"{word!r} stands in the list already")
            seen.add(word)
        if not words:
            raise at.error(f".lists.{name}", "is empty")
    return dict(at.entry.lists)


def _rule(at: _At, words: dict[str, list[str]], characters: Characters) -> Rule:
    entry: _RuleEntry = at.entry

    def compiled(field: str, sources: list[str]) -> tuple[Pattern, ...]:
        return tuple(
            _compile(at, f".{field}[{index}]", source, words, characters) for index, source in enumerate(sources)
        )

    return Rule(
        id=entry.id,
        family=entry.family,
        severity=entry.severity,
        effective_from_ms=_begins(at),
        until_ms=beijing_midnight_ms(entry.until) if entry.until else None,
        source=entry.source,
        catches=entry.catches,
        message_zh=entry.message.zh,
        message_en=entry.message.en,
        channels=frozenset(entry.channels),
        match=compiled("match", entry.match),
        disguised=compiled("disguised", entry.disguised),
        links=frozenset(entry.link),
        on_unreadable=entry.payload == "unreadable",
        unless=compiled("unless", entry.unless),
        unless_before=compiled("unless_before", entry.unless_before),
        unless_after=compiled("unless_after", entry.unless_after),
    )


def _compile(at: _At, field: str, source: str, words: dict[str, list[str]], characters: Characters) -> Pattern:
    try:
        pattern = compile_pattern(source, words)
    except PatternError as error:
        raise at.error(field, str(error)) from None
    for character in sorted(pattern.characters):
        if (form := characters.form(character)) != character:
            raise at.error(field, f"{character!r} never stands in a text: it is read as {form!r}")
    return pattern


def _link_rules(at: _At) -> LinkRules:
    for field in ("shorteners", "parameters"):
        values = getattr(at.entry, field)
        _each_once(at, field, values, lambda value: value == value.lower().strip() and bool(value))
    return LinkRules(frozenset(at.entry.shorteners), frozenset(at.entry.parameters))


def _each_once(at: _At, field: str, values: list[str], fits: Callable[[str], bool]) -> None:
    for index, value in enumerate(values):
        if not fits(value):
            raise at.error(f".{field}[{index}]", f"{value!r} is not in lower case")
        if value in values[:index]:
            raise at.error(f".{field}[{index}]", f"{value!r} stands there already")


def _payloads(at: _At) -> dict[str, Places]:
    for endpoint, places in at.entry.endpoints.items():
        for field, paths in (("texts", places.texts), ("links", places.links)):
            for index, path in enumerate(paths):
                steps = [step.removesuffix("[]") for step in path.split(".")]
                if not all(step.replace("_", "").isalnum() for step in steps):
                    raise at.error(f".endpoints.{endpoint}.{field}[{index}]", f"{path!r} is not a path like a.b[].c")
    return dict(at.entry.endpoints)
