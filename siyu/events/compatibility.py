"""Schema evolution: every version of a type must read every other version's values, in both directions.

Forward, because a rolling upgrade runs old readers beside new writers; backward, because topics keep old values. The
rules are Avro's schema resolution for what our schemas use: records of primitives, arrays and maps.
"""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

_PROMOTES = {"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}}


def incompatibilities(directory: Path) -> list[str]:
    """One line per pair of versions and reason, and per id without a file or the reverse; empty when all fit."""
    ids: dict[str, int] = json.loads((directory / "ids.json").read_text())
    files = {path.name.removesuffix(".avsc"): path for path in (directory / "avro").glob("*.avsc")}
    found = [f"{name}: has an id but no file" for name in sorted(set(ids) - set(files))]
    found += [f"{name}: has a file but no id" for name in sorted(set(files) - set(ids))]
    versions: dict[str, dict[str, Any]] = {}
    for name in sorted(set(ids) & set(files)):
        base = name.rpartition(".v")[0]
        versions.setdefault(base, {})[name] = json.loads(files[name].read_text())
    for schemas in versions.values():
        for (writer_name, writer), (reader_name, reader) in permutations(schemas.items(), 2):
            found += [f"{reader_name} cannot read {writer_name}: {why}" for why in unreadable(writer, reader)]
    return found


def unreadable(writer: Any, reader: Any, where: str = "") -> list[str]:
    """Why a reader with schema ``reader`` cannot read what ``writer`` wrote; empty when it can."""
    at = f"{where}: " if where else ""
    if isinstance(writer, list) or isinstance(reader, list):
        branches = writer if isinstance(writer, list) else [writer]
        options = reader if isinstance(reader, list) else [reader]
        return [
            f"{at}no branch for {_kind(branch)}"
            for branch in branches
            if all(unreadable(branch, option) for option in options)
        ]
    written, read = _kind(writer), _kind(reader)
    if written != read:
        return [] if read in _PROMOTES.get(written, ()) else [f"{at}{written} is not {read}"]
    if written == "array":
        return unreadable(writer["items"], reader["items"], f"{where}[]")
    if written == "map":
        return unreadable(writer["values"], reader["values"], f"{where}{{}}")
    if written != "record":
        return []
    if writer["name"] != reader["name"]:
        return [f"{at}record {writer['name']} is not {reader['name']}"]
    written_fields = {field["name"]: field["type"] for field in writer["fields"]}
    reasons: list[str] = []
    for field in reader["fields"]:
        place = f"{where}.{field['name']}" if where else field["name"]
        if field["name"] in written_fields:
            reasons += unreadable(written_fields[field["name"]], field["type"], place)
        elif "default" not in field:
            reasons.append(f"{place} is missing and has no default")
    return reasons


def _kind(schema: Any) -> str:
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)
