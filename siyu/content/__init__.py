"""Whether a message may go out: content rules as dated data, and a linter that says which rule, where and why."""

from siyu.content.errors import ContentError
from siyu.content.lint import Finding, lint, lint_link
from siyu.content.payloads import TextAt, lint_payload, texts_of
from siyu.content.rules import (
    CHANNELS,
    FAMILIES,
    Channel,
    ContentRules,
    Family,
    Rule,
    RuleSet,
    Severity,
    default_folder,
    load_rules,
    parse_rules,
)

__all__ = [
    "CHANNELS",
    "FAMILIES",
    "Channel",
    "ContentError",
    "ContentRules",
    "Family",
    "Finding",
    "Rule",
    "RuleSet",
    "Severity",
    "TextAt",
    "default_folder",
    "lint",
    "lint_link",
    "lint_payload",
    "load_rules",
    "parse_rules",
    "texts_of",
]
