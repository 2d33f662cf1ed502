"""The language patterns are written in: regular expressions without anything unbounded, so that no text, however
written, makes a match slow.

    转发            these characters
    (a|b)           one of these
    <share>         one of the words of a list
    [0-9a-z]  [^券] one character of a class
    .               any character that does not end a sentence
    x?   x{2,8}     optional; repeated, at most 60 times
    ~12             up to 12 characters, none of which ends a sentence
    ^  $            begin, end of the text
    \\x             x itself, for each of ( ) | < > [ ] . ? { } ~ ^ $ \\ * +

There is no ``*``, no ``+`` and no reference back. What remains is bounded by :attr:`Pattern.work`, the steps one start
position can cost at most; a pattern above ``MOST_WORK`` is refused when rules are loaded, so matching is linear in the
length of the text. Patterns are matched against :class:`siyu.content.normal.Normal`, never against the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from siyu.content.normal import ENDS

MOST_WORK = 30_000
"""Steps one start position may cost; every start costs at least one step, most cost no more."""
_MOST_TIMES = 60
_SPECIAL = frozenset("()|<>[].?{}~^$\\*+")
_ANY = f"[^{ENDS}]"


class PatternError(ValueError):
    """A pattern nobody can use; the message says where in it and why."""


@dataclass(frozen=True)
class _Part:
    """A piece of a pattern: as ``re`` wants it, and what it can cost."""

    regex: str
    ways: int
    """In how many ways it can match at one place, at most."""
    work: int
    """Steps to try all of them, at most."""
    needed: tuple[frozenset[str], ...] = ()
    """Of each set one must stand in the text."""
    literals: tuple[str, ...] = ()
    """Set for a piece that is one of these strings and nothing else."""


@dataclass(frozen=True)
class Pattern:
    """One compiled pattern."""

    source: str
    regex: re.Pattern[str]
    work: int
    characters: frozenset[str]
    """Written literally in it."""
    needed: tuple[frozenset[str], ...]
    """Of each set one string must stand in the text, or the pattern cannot match: a cheap look before the search."""

    def may_match(self, present: frozenset[str]) -> bool:
        """False: it does not match a text in which only these words of a :class:`Words` stand."""
        return not any(present.isdisjoint(group) for group in self.needed)


class Words:
    """Which of many words stand in a text, found in one pass over the text: by their first two characters."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        words = {word for pattern in patterns for group in pattern.needed for word in group}
        self._single = frozenset(word for word in words if len(word) == 1)
        self._beginning: dict[str, list[str]] = {}
        for word in words - self._single:
            self._beginning.setdefault(word[:2], []).append(word)

    def present(self, text: str) -> frozenset[str]:
        """The words that stand in the text."""
        pairs = set(map(str.__add__, text, text[1:]))
        found = set(self._single.intersection(text))
        for beginning in pairs & self._beginning.keys():
            found.update(word for word in self._beginning[beginning] if word in text)
        return frozenset(found)


def compile_pattern(source: str, words: Mapping[str, Sequence[str]]) -> Pattern:
    """Compiles one pattern with these word lists. Raises PatternError."""
    parser = _Parser(source, words)
    part = parser.whole()
    if part.work > MOST_WORK:
        raise PatternError(
            f"costs up to {part.work} steps at one place, {MOST_WORK} are allowed: shorten gaps or lists"
        )
    compiled = re.compile(part.regex)
    if compiled.search(""):
        raise PatternError("matches nothing at all, so it would match everywhere")
    return Pattern(source, compiled, part.work, frozenset(parser.literal), part.needed)


class _Parser:
    def __init__(self, source: str, words: Mapping[str, Sequence[str]]) -> None:
        self._source = source
        self._words = words
        self._at = 0
        self.literal: set[str] = set()

    def whole(self) -> _Part:
        part = self._choice()
        if self._at < len(self._source):
            raise self._error(f"{self._source[self._at]!r} without its beginning")
        return part

    def _error(self, problem: str) -> PatternError:
        return PatternError(f"{self._source!r} at character {self._at + 1}: {problem}")

    def _next(self) -> str:
        return self._source[self._at : self._at + 1]

    def _choice(self) -> _Part:
        options = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            options.append(self._sequence())
        return _either(options) if len(options) > 1 else options[0]

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while (sign := self._next()) and sign not in "|)":
            parts.append(self._repeated(self._item()))
        return _together(parts)

    def _item(self) -> _Part:
        sign = self._next()
        self._at += 1
        match sign:
            case "(":
                inner = self._choice()
                if self._next() != ")":
                    raise self._error("a bracket '(' is not closed")
                self._at += 1
                return inner
            case "<":
                return self._word_list()
            case "[":
                return self._class()
            case "~":
                most = self._number()
                if not 1 <= most <= _MOST_TIMES:
                    raise self._error(f"a gap is 1 to {_MOST_TIMES} characters")
                return _Part(f"{_ANY}{{0,{most}}}?", most + 1, most + 1)
            case ".":
                return _Part(_ANY, 1, 1)
            case "^" | "$":
                return _Part(r"\A" if sign == "^" else r"\Z", 1, 1)
            case "\\":
                escaped = self._next()
                if not escaped or escaped not in _SPECIAL:
                    raise self._error(f"\\{escaped} has no meaning")
                self._at += 1
                self.literal.add(escaped)
                return _text(escaped)
        if sign in _SPECIAL:
            self._at -= 1
            raise self._error(f"{sign!r} has no meaning here; the sign itself is written \\{sign}")
        self.literal.add(sign)
        return _text(sign)

    def _number(self) -> int:
        begin = self._at
        while self._next().isascii() and self._next().isdigit():
            self._at += 1
        if not 1 <= self._at - begin <= 3:
            raise self._error("a number of up to three digits is missing")
        return int(self._source[begin : self._at])

    def _until(self, closing: str) -> str:
        end = self._source.find(closing, self._at)
        if end < 0:
            raise self._error(f"{closing!r} is missing")
        inside = self._source[self._at : end]
        self._at = end + 1
        return inside

    def _word_list(self) -> _Part:
        name = self._until(">")
        words = self._words.get(name)
        if words is None:
            raise self._error(f"no word list {name!r}")
        return _either([_text(word) for word in sorted(words, key=lambda word: (-len(word), word))])

    def _class(self) -> _Part:
        inside = self._until("]")
        negated = inside.startswith("^")
        signs = inside[1:] if negated else inside
        if not signs:
            raise self._error("a class needs characters")
        ranges = [f"{re.escape(a)}-{re.escape(b)}" if b else re.escape(a) for a, b in _ranges(signs)]
        if any(b and b < a for a, b in _ranges(signs)):
            raise self._error("a range runs backwards")
        return _Part(f"[{'^' + re.escape(ENDS) if negated else ''}{''.join(ranges)}]", 1, 1)

    def _repeated(self, part: _Part) -> _Part:
        sign = self._next()
        if sign == "?":
            self._at += 1
            return _Part(f"(?:{part.regex})?", part.ways + 1, part.work + 1)
        if sign != "{":
            return part
        self._at += 1
        least = self._number()
        most = least
        if self._next() == ",":
            self._at += 1
            most = self._number()
        if self._next() != "}":
            raise self._error("'}' is missing")
        self._at += 1
        if not least <= most <= _MOST_TIMES or most == 0:
            raise self._error(f"repeats at most {_MOST_TIMES} times, and not fewer than the least")
        tries = [min(part.ways**times, MOST_WORK * 10) for times in range(most + 1)]
        return _Part(
            f"(?:{part.regex}){{{least},{most}}}",
            min(sum(tries[least:]), MOST_WORK * 10),
            min(1 + sum(tries[:most]) * part.work, MOST_WORK * 10),
            part.needed if least else (),
        )


def _ranges(signs: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(signs):
        if signs[at + 1 : at + 2] == "-" and at + 2 < len(signs):
            found.append((signs[at], signs[at + 2]))
            at += 3
        else:
            found.append((signs[at], ""))
            at += 1
    return found


def _text(literal: str) -> _Part:
    return _Part(re.escape(literal), 1, 1, (frozenset({literal}),), (literal,))


def _together(parts: list[_Part]) -> _Part:
    """One after the other: what follows is tried once for every way in which what precedes can match."""
    merged: list[_Part] = []
    for part in parts:
        if merged and len(part.literals) == 1 and len(merged[-1].literals) == 1:
            merged[-1] = _text(merged[-1].literals[0] + part.literals[0])
        else:
            merged.append(part)
    if len(merged) == 1:
        return merged[0]
    ways, work = 1, 0
    for part in merged:
        work += ways * part.work
        ways = min(ways * part.ways, MOST_WORK * 10)
    needed = tuple(group for part in merged for group in part.needed)
    return _Part("".join(part.regex for part in merged), ways, max(work, 1), needed)


@cache
def _prefix_chain(literals: tuple[str, ...]) -> int:
    """How many of the literals can match at one place: the longest chain of beginnings of one another."""
    known = set(literals)
    return max(sum(word[:length] in known for length in range(1, len(word) + 1)) for word in known)


def _either(options: list[_Part]) -> _Part:
    if all(option.literals for option in options):
        literals = tuple(word for option in options for word in option.literals)
        regex = f"(?:{'|'.join(map(re.escape, literals))})"
        return _Part(regex, _prefix_chain(literals), len(literals), (frozenset(literals),), literals)
    # Of every option the set that says most: the one whose shortest string is the longest.
    best = [max(option.needed, key=lambda group: min(map(len, group)), default=None) for option in options]
    known = [group for group in best if group is not None]
    needed = (frozenset().union(*known),) if len(known) == len(best) else ()
    regex = f"(?:{'|'.join(option.regex for option in options)})"
    return _Part(regex, sum(option.ways for option in options), sum(option.work for option in options), needed)
