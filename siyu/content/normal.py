"""A text as a reader understands it, with the way back: every character of :class:`Normal` knows which characters of
the original it stands for, so that a finding can point at what was really written.

Pure and linear in the length of the text. Three kinds of change: *same sign, other form* (full width, letters of other
alphabets, traditional characters, case); *nothing to read* (zero-width and combining characters) is dropped; *symbols
between signs* (spaces, punctuation, emoji) are dropped too, unless they end a sentence or stand inside a number, a
Latin word or an address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

LINK = "\ue000"
"""Stands for a whole address. A private-use character; one in the text itself is dropped like any symbol."""
ENDS = "。!?;\n"
"""Ends of a sentence: no pattern reaches across."""
PAUSES = ",:"
"""Pauses: a gap of a pattern may reach across, a word may not."""

_DROPPED = "\x00"
_SYMBOL = "\x01"
_BOUNDARIES = {"。": "。", "｡": "。", "!": "!", "?": "?", ";": ";", "\n": "\n", ",": ",", "、": ",", ":": ":"}
_KEPT = "%+¥$€£"
_LATIN_INSIDE = " .-/_"
"""Kept between two Latin letters or digits: 9.9, 10-20, SPF 50, v_x."""
_ASCII_SYMBOLS = "\"#&'()*<=>@[\\]^`{|}~"
"""Dropped like every symbol, but only after addresses have been found."""
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters by their category, and nothing to see."""
INVISIBLE = frozenset({"Cf", "Mn", "Me", "Cc", "Cs", "Cn"})
"""Categories of characters that show nothing by themselves."""
_REMEMBERED = 20_000
"""Characters whose form is remembered: more than any language uses, less than an attacker could make us keep."""

_PIECE = re.compile(
    rf"[^{_DROPPED}{_SYMBOL}{re.escape(_LATIN_INSIDE + _ASCII_SYMBOLS)}]+"
    rf"|(?<=[a-z0-9])[{re.escape(_LATIN_INSIDE)}](?=[a-z0-9])"
)
_HAN = "\u3400-\u9fff"
_LONELY = re.compile(
    rf"(?<![{_HAN}])[{_HAN}](?P<between>[,:。!?;\n])(?=[{_HAN}](?![{_HAN}]))"  # one sign on either side
    rf"|(?<![{_HAN}])[{_HAN}](?P<after>,)(?=[{_HAN}])"  # one sign before the comma
    rf"|(?<=[{_HAN}])(?P<before>,)(?=[{_HAN}](?![{_HAN}]))"  # one sign behind it
)
_REPEATED = re.compile(r"([。!?;\n,:])\1+")
_ADDRESS = re.compile(
    r"(?:(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,15}://|(?<![a-z0-9@._-])(?=[a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63}){1,6}(?![a-z0-9.-])))"
    r"[a-z0-9._~:/?#@!$&'()*+,;=%\[\]-]{1,2048}"
)
_BARE_HOST = re.compile(r"(?:[a-z0-9-]{1,63}\.){1,6}([a-z]{2,24})(?=[/:?#]|$)")
_BARE_NUMBERS = re.compile(r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?=[/:])")
"""Four numbers alone are a version or a size; with a path or a port behind them they are an address."""


@dataclass(frozen=True)
class Normal:
    """The text to match against. ``starts[i]``, ``ends[i]``: what character ``i`` stands for, in the original."""

    original: str
    text: str
    starts: list[int]
    ends: list[int]
    links: tuple[tuple[int, int], ...]
    """Addresses in the text, as spans of the original."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The original's span of ``text[start:end]``, which is not empty."""
        return self.starts[start], self.ends[end - 1]

    def interrupted(self, start: int, end: int) -> bool:
        """Whether something was dropped between the characters of ``text[start:end]``."""
        return any(self.starts[i + 1] > self.ends[i] for i in range(start, end - 1))


@dataclass(frozen=True)
class Characters:
    """Forms of characters: which single characters are written for which (one of the dated files)."""

    look_alike: Mapping[str, str]
    """Letters and signs that only look like another: writing them is a disguise."""
    variant: Mapping[str, str]
    """Other forms of the same character, such as traditional ones: no disguise."""
    domains: frozenset[str]
    """Last labels of a host name, by which an address without ``https://`` is recognised."""

    @cached_property
    def _table(self) -> _Table:
        return _Table(self)

    def form(self, character: str) -> str:
        """What one character becomes before symbols are taken out; more than one for ligatures and units."""
        changed = self.variant.get(character) or self.look_alike.get(character)
        if changed is not None:
            return changed
        found = []
        for part in unicodedata.normalize("NFKC", character).lower():
            part = self.variant.get(part) or self.look_alike.get(part) or part
            found.append(_class(part))
        return "".join(found) or _DROPPED

    def disguised(self, original: str) -> bool:
        """Whether a look-alike stands in the text."""
        return not self.look_alike.keys().isdisjoint(original)

    def normal(self, text: str) -> Normal:
        """Never raises, for any text."""
        plain = text.translate(self._table)
        if len(plain) == len(text):
            if _DROPPED not in plain:
                return self._dense(text, plain, None)
            where = [index for index, sign in enumerate(plain) if sign != _DROPPED]
            return self._dense(text, plain.replace(_DROPPED, ""), where)
        where = []
        parts: list[str] = []
        for index, character in enumerate(text):
            form = self._table[ord(character)].replace(_DROPPED, "")
            parts.append(form)
            where.extend([index] * len(form))
        return self._dense(text, "".join(parts), where)

    def _dense(self, original: str, plain: str, where: list[int] | None) -> Normal:
        links = self._links(plain)
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for link_start, link_end in (*links, (len(plain), len(plain))):
            for piece in _PIECE.finditer(plain, at, link_start):
                pieces.append(piece[0])
                starts.extend(range(piece.start(), piece.end()))
            if link_end > link_start:
                pieces.append(LINK)
                starts.append(link_start)
            at = link_end
        ends = [start + 1 for start in starts]
        text = "".join(pieces)
        if links:
            spans = iter(links)
            for index, character in enumerate(text):
                if character == LINK:
                    ends[index] = next(spans)[1]
        text, starts, ends = _without(text, starts, ends, _REPEATED, keep_first=True)
        text, starts, ends = _without(text, starts, ends, _LONELY, keep_first=False)
        if where is None:
            return Normal(original, text, starts, ends, tuple(links))
        return Normal(
            original,
            text,
            [where[start] for start in starts],
            [where[end - 1] + 1 for end in ends],
            tuple((where[start], where[end - 1] + 1) for start, end in links),
        )

    def _links(self, plain: str) -> list[tuple[int, int]]:
        if "." not in plain and "://" not in plain:
            return []
        found = []
        for match in _ADDRESS.finditer(plain):
            text = match[0].rstrip(".,;:!?')]")
            if "://" not in text[:20]:
                host = _BARE_HOST.match(text)
                if (host is None or host[1] not in self.domains) and not _BARE_NUMBERS.match(text):
                    continue
            found.append((match.start(), match.start() + len(text)))
        return found


def _class(part: str) -> str:
    """A character of NFKC form as it stays, or the mark of what is dropped."""
    if part in _BOUNDARIES:
        return _BOUNDARIES[part]
    if part in _FILLERS:
        return _DROPPED
    if part.isalnum() or part in _KEPT or part in _LATIN_INSIDE or part in _ASCII_SYMBOLS:
        return part
    return _DROPPED if unicodedata.category(part) in INVISIBLE else _SYMBOL


class _Table(dict[int, str]):
    """What ``str.translate`` asks; filled as characters come."""

    def __init__(self, characters: Characters) -> None:
        super().__init__()
        self._characters = characters

    def __missing__(self, code: int) -> str:
        form = self._characters.form(chr(code))
        if len(self) < _REMEMBERED:
            self[code] = form
        return form


def _without(
    text: str, starts: list[int], ends: list[int], pattern: re.Pattern[str], *, keep_first: bool
) -> tuple[str, list[int], list[int]]:
    """Takes out what the pattern names: its groups, or (``keep_first``) all of a match but its first character."""
    gone = [
        (match.start() + 1, match.end()) if keep_first else match.span(match.lastgroup or 0)
        for match in pattern.finditer(text)
    ]
    if not gone:
        return text, starts, ends
    kept_text: list[str] = []
    kept_starts: list[int] = []
    kept_ends: list[int] = []
    at = 0
    for start, end in (*gone, (len(text), len(text))):
        kept_text.append(text[at:start])
        kept_starts += starts[at:start]
        kept_ends += ends[at:start]
        at = end
    return "".join(kept_text), kept_starts, kept_ends
