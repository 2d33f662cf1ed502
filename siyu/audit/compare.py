"""Expected rows against found rows: what is lost, what is there twice or for no reason, and what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from siyu.audit.model import Key, Row, Rows
from siyu.audit.report import Difference, Section


def compare(
    name: str, source: str, expected: Rows, found: Iterable[tuple[Key, Row]], *, only: Collection[str] | None = None
) -> Section:
    """Row by row. ``only``: the fields the source can tell anything about (default: all of the expected row)."""
    section = Section(name, source, expected=len(expected))
    times: Counter[Key] = Counter()
    for key, row in found:
        section.found += 1
        times[key] += 1
        if key not in expected:
            section.add(Difference("double", "nothing that arrived explains this row", key))
        elif times[key] > 1:
            section.add(Difference("double", "the row stands more than once", key))
        else:
            wanted = expected[key]
            fields = {
                field: (wanted[field], row[field])
                for field in (wanted if only is None else only)
                if wanted[field] != row[field]
            }
            if fields:
                section.add(Difference("different", "the row says something else", key, fields))
    for key in expected:
        if not times[key]:
            section.add(Difference("lost", "the row is missing", key))
    return section
