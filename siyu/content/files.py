"""YAML into types, and every refusal names file, line and field. A field nobody knows and a key that stands twice are
refused: a misspelt field of a rule would otherwise switch the rule off without a word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from siyu.content.errors import ContentError

T = TypeVar("T")

_AT = re.compile(r"(?s)^(.*) - at (?:`key` in )?`\$(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")


@dataclass(frozen=True)
class File:
    """One YAML file: its content as plain values, and where each of them stands."""

    name: str
    root: yaml.Node
    raw: Any

    def error(self, path: str, problem: str) -> ContentError:
        """What is wrong at ``path`` (``.rules[3].match``), with its line."""
        node, line, field = self.root, self.root.start_mark.line, ""
        for step in _STEP.finditer(path):
            inner: yaml.Node | None = None
            if step[1] is not None and isinstance(node, yaml.MappingNode):
                field += f".{step[1]}" if field else step[1]
                inner, line = next(((v, k.start_mark.line) for k, v in node.value if k.value == step[1]), (None, line))
            elif step[2] is not None and isinstance(node, yaml.SequenceNode) and int(step[2]) < len(node.value):
                field += f"[{step[2]}]"
                inner = node.value[int(step[2])]
                line = inner.start_mark.line
            if inner is None:
                break
            node = inner
        if (unknown := _UNKNOWN.search(problem)) and isinstance(node, yaml.MappingNode):
            line = next((k.start_mark.line for k, _ in node.value if k.value == unknown[1]), line)
        return ContentError(f"{self.name}:{line + 1}: {field + ': ' if field else ''}{problem}")

    def read(self, kind: type[T], raw: Any = None, path: str = "") -> T:
        """``raw`` (default: all of the file), which stands at ``path``, as ``kind``. Raises ContentError."""
        try:
            return msgspec.convert(self.raw if raw is None else raw, type=kind)
        except msgspec.ValidationError as error:
            found = _AT.match(str(error))
            problem, below = (found[1], found[2]) if found else (str(error), "")
            raise self.error(path + below, problem) from None


def read_yaml(path: Path) -> File:
    """Reads one file. Raises ContentError."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        raise ContentError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ContentError(f"{path}: not UTF-8") from None


def parse_yaml(text: str, name: str) -> File:
    """Parses a text; ``name`` is the file's in messages. Raises ContentError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ContentError(f"{name}:1: the file is empty")
        file = File(name, root, yaml.safe_load(text))
    except ContentError:
        raise
    except yaml.reader.ReaderError as error:
        raise ContentError(f"{name}:{text.count(chr(10), 0, error.position) + 1}: not YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        raise ContentError(f"{name}:{mark.line + 1 if mark else 1}: not YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ContentError(f"{name}:1: not YAML: {error}") from None
    _refuse_repeated_keys(file)
    return file


def _refuse_repeated_keys(file: File) -> None:
    """YAML takes the last of two equal keys without a word."""
    waiting: list[yaml.Node] = [file.root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if str(key.value) in lines:
                    raise ContentError(f"{file.name}:{line}: {key.value}: stands in line {lines[key.value]} already")
                lines[str(key.value)] = line
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
