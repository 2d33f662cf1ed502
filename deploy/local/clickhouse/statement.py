"""What a request's text asks for, found without parsing SQL: its kind, its output format, and where insert data begins.

Only what the HTTP interface itself must know is looked at; whether the statement makes sense is the engine's to say.
Quotes and comments are respected, so a `FORMAT` or a `;` inside a string is not taken for one.
"""

import re
from dataclasses import dataclass
from enum import Enum

from deploy.local.clickhouse.exceptions import ClickHouseException, Code

__all__ = ["Kind", "Statement", "scan"]

_TOKEN = re.compile(
    rb"""
      (?P<space> \s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/ )
    | (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` )
    | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<number> [0-9][A-Za-z0-9_.]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_READS = frozenset({b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"("})
_SELECTS = frozenset({b"SELECT", b"WITH", b"("})
# What ClickHouse skips between the name of the format and the data: blanks, then one line end.
_BEFORE_DATA = re.compile(rb"[ \t\f]*\r?\n?")


class Kind(Enum):
    SELECT = "select"
    READ = "read"  # SHOW, DESCRIBE, EXPLAIN …: answers, changes nothing
    WRITE = "write"  # everything that may change something and carries no data
    INSERT = "insert"  # carries its rows in the request


@dataclass(frozen=True)
class Statement:
    kind: Kind
    format: str | None
    """The format the text asks for: of the answer, or of the data of an INSERT."""
    head: bytes
    """For INSERT the text before FORMAT or VALUES; else the whole text."""
    data_at: int
    """For INSERT the offset of the first byte of data; else the length of the text."""
    totals: bool = False
    """The answer carries a second part (WITH TOTALS), which only a complete answer shows."""


def scan(text: bytes) -> Statement:
    """Raises ClickHouseException for an empty text, several statements, and files on the client's side."""
    first, previous, previous_at, words = b"", b"", 0, set[bytes]()
    output_format, depth, ended = None, 0, False
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "space":
            continue
        word = token.group().upper() if token.lastgroup == "word" else token.group()
        if word == b";":
            ended = True
            continue
        if ended:
            raise ClickHouseException(Code.SYNTAX_ERROR, "Syntax error: Multi-statements are not allowed")
        if not first:
            first = word
        if word in b"([{" and token.lastgroup == "other":
            depth += 1
        elif word in b")]}" and token.lastgroup == "other":
            depth -= 1
        elif depth == 0 and previous == b"FORMAT" and token.lastgroup == "word":
            output_format = token.group().decode()
            if first == b"INSERT":
                if words & {b"SELECT", b"WITH", b"WATCH"}:
                    raise ClickHouseException(
                        Code.NOT_IMPLEMENTED,
                        "INSERT … SELECT FROM input() with data in the request is not supported here",
                    )
                return Statement(Kind.INSERT, output_format, text[:previous_at], _data_at(text, token.end()))
        elif depth == 0 and word == b"VALUES" and first == b"INSERT" and not words & {b"SELECT", b"WITH"}:
            return Statement(Kind.INSERT, "Values", text[: token.start()], token.end())
        elif word in (b"INFILE", b"OUTFILE") and token.lastgroup == "word" and previous in (b"FROM", b"INTO"):
            raise ClickHouseException(
                Code.INTO_OUTFILE_NOT_ALLOWED, f"{word.decode()} names a file of the client, which HTTP does not have"
            )
        if token.lastgroup == "word":
            words.add(word)
        previous, previous_at = word, token.start()
    if not first:
        raise ClickHouseException(Code.SYNTAX_ERROR, "Syntax error: Empty query")
    kind = Kind.SELECT if first in _SELECTS else Kind.READ if first in _READS else Kind.WRITE
    return Statement(kind, output_format, text, len(text), totals=b"TOTALS" in words)


def _data_at(text: bytes, format_end: int) -> int:
    blanks = _BEFORE_DATA.match(text, format_end)
    return blanks.end() if blanks else format_end
