"""What a customer would read in the payload of a call, and what the rules object to in it. Never raises for a payload,
whatever its bytes: one nobody can read is itself a finding, because nobody can say what it would send.

Where the texts stand is data (``schemas/rules/content/payloads.yaml``; fact sheet §3.4–3.6, §3.12).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from siyu.content.lint import Finding, lint, lint_link
from siyu.content.rules import Channel, RuleSet


@dataclass(frozen=True)
class TextAt:
    """A text and where it stands."""

    path: str
    """``$.attachments[0].link.title``."""
    text: str
    kind: Literal["text", "link"] = "text"


class _Unreadable(Exception):
    """The payload, or the value at this path, is not what the platform documents."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def texts_of(endpoint: str, payload: Mapping[str, Any], rules: RuleSet) -> list[TextAt]:
    """Every text and address a customer would get from this call, in the order of the data file. Empty for an endpoint
    that shows nobody anything. A value of another type than text is left out here; :func:`lint_payload` reports it."""
    return [at for at in _places(endpoint, payload, rules) if isinstance(at, TextAt)]


def lint_payload(endpoint: str, payload: bytes, rules: RuleSet) -> list[Finding]:
    """Everything the rules object to in a call's body (JSON, UTF-8), each with its path. An endpoint without texts has
    no findings, whatever its body."""
    places = rules.payloads.get(endpoint)
    if places is None:
        return []
    try:
        body = json.loads(payload, object_pairs_hook=_object)
        if not isinstance(body, dict):
            raise _Unreadable("$")
    except _Unreadable as error:
        return _unreadable(error.path, rules, places.channel)
    except (ValueError, RecursionError):
        return _unreadable("$", rules, places.channel)
    found: list[Finding] = []
    for at in _places(endpoint, body, rules):
        if isinstance(at, _Unreadable):
            found.extend(_unreadable(at.path, rules, places.channel))
            continue
        look = lint if at.kind == "text" else lint_link
        found.extend(replace(finding, path=at.path) for finding in look(at.text, rules, places.channel))
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that stands twice is two answers to what is sent: ours and the platform's may differ."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Unreadable("$")
    return made


def _unreadable(path: str, rules: RuleSet, channel: Channel) -> list[Finding]:
    return [
        Finding(rule.id, rule.family, rule.severity, (0, 0), "", rule.message_zh, rule.message_en, path)
        for rule in rules.by_channel[channel]
        if rule.on_unreadable
    ]


def _places(endpoint: str, payload: Mapping[str, Any], rules: RuleSet) -> Iterator[TextAt | _Unreadable]:
    places = rules.payloads.get(endpoint)
    if places is None:
        return
    kinds: tuple[tuple[list[str], Literal["text", "link"]], ...] = ((places.texts, "text"), (places.links, "link"))
    told: set[str] = set()
    for paths, kind in kinds:
        for path in paths:
            for at in _walk(payload, path.split("."), "$", kind):
                if isinstance(at, TextAt) or at.path not in told:
                    yield at
                if isinstance(at, _Unreadable):
                    told.add(at.path)  # several paths lead through it


def _walk(value: Any, steps: list[str], path: str, kind: Literal["text", "link"]) -> Iterator[TextAt | _Unreadable]:
    """What stands at the end of ``steps``. What is absent or null is nothing; another type than the path expects
    cannot be read."""
    if value is None:
        return
    if not steps:
        yield TextAt(path, value, kind) if isinstance(value, str) else _Unreadable(path)
        return
    name, many, _ = steps[0].partition("[]")
    if not isinstance(value, Mapping):
        yield _Unreadable(path)
        return
    inner, path = value.get(name), f"{path}.{name}"
    if not many:
        yield from _walk(inner, steps[1:], path, kind)
    elif isinstance(inner, list):
        for index, item in enumerate(inner):
            yield from _walk(item, steps[1:], f"{path}[{index}]", kind)
    elif inner is not None:
        yield _Unreadable(path)
