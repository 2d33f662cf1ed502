"""What is wrong with an address a customer is asked to open. Pure: nothing is looked up in the network."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from siyu.content.normal import INVISIBLE

LinkFault = Literal["short", "raw_address", "not_https", "carries_address", "names_user", "foreign_letters"]

_PARTS = re.compile(
    r"(?s)(?:([a-z][a-z0-9+.-]{0,20}):)?(?://)?(?:([^/?#]*)@)?(\[[^\]]*\]|[^/?#:]*)(:[^/?#]*)?([/?#].*)?"
)
_NUMBERS = re.compile(r"(?:0x[0-9a-f]{1,8}|[0-9]{1,10})(?:\.(?:0x[0-9a-f]{1,8}|[0-9]{1,10})){0,3}")
_HOST_FIRST = re.compile(r"(?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24}(?:[/:?]|$)")
_UNQUOTED = 3
"""An address may be quoted more than once to hide; deeper than this no browser's visitor is led on purpose."""


@dataclass(frozen=True)
class LinkRules:
    """Hosts and parameters that hide where an address leads (one of the dated files)."""

    shorteners: frozenset[str]
    """Hosts whose addresses say nothing about the target; below them counts too."""
    parameters: frozenset[str]
    """Names of parameters that carry a target."""


def faults(address: str, rules: LinkRules) -> list[LinkFault]:
    """Everything wrong with one address, in a fixed order. ``address`` as written, with or without a scheme. Never
    raises. An address without a scheme inside a text is opened by WeChat as a link, so it is looked at in the same way;
    what scheme it will get is unknown and not held against it."""
    form = unicodedata.normalize("NFKC", address).lower()
    form = "".join(sign for sign in form if unicodedata.category(sign) not in INVISIBLE).strip()
    parts = _PARTS.fullmatch(form)
    assert parts is not None, "every part of the expression may be empty"
    scheme, user, host, _port, rest = parts.groups()
    host = host.rstrip(".")
    found: list[LinkFault] = []
    if any(host == short or host.endswith(f".{short}") for short in rules.shorteners):
        found.append("short")
    if host.startswith("[") or _NUMBERS.fullmatch(host):
        found.append("raw_address")
    if scheme is not None and scheme != "https":
        found.append("not_https")
    if rest is not None and _carries_address(rest, rules):
        found.append("carries_address")
    if user is not None:
        found.append("names_user")
    if not host.isascii() or "xn--" in host:
        found.append("foreign_letters")
    return found


def _carries_address(rest: str, rules: LinkRules) -> bool:
    """A parameter that leads on, or a whole address behind the host: https://a.cn/go?url=…, https://a.cn/http://b.cn."""
    for _ in range(_UNQUOTED):
        if "://" in rest:
            return True
        for pair in re.split(r"[?&#;]", rest):
            name, _equals, value = pair.partition("=")
            if name in rules.parameters and (value.startswith("//") or _HOST_FIRST.match(value)):
                return True
        unquoted = unquote(rest)
        if unquoted == rest:
            return False
        rest = unquoted.lower()
    return "://" in rest
