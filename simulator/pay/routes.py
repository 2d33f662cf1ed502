"""What a call of the v3 interface is, and which function answers which path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import unquote

from simulator.pay.errors import PayError
from simulator.pay.ledger import PayRules
from simulator.pay.merchant import Merchant
from simulator.world.corp import CorpWorld

T = TypeVar("T")
Method = Literal["GET", "POST", "PATCH"]


@dataclass(frozen=True, slots=True)
class File:
    """An answer that is a file: not signed, and not JSON."""

    content: bytes
    media_type: str = "text/plain; charset=utf-8"


Answer = dict[str, Any] | File | None
"""None: 204, nothing to say."""


@dataclass(slots=True)
class Windows:
    """Calls counted in windows of the platform's own clock."""

    _used: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, key: str, most: int, length_s: int, clock_s: float) -> bool:
        """Counts one; False when the window's number is used up."""
        window = int(clock_s // length_s)
        began, used = self._used.get(key, (window, 0))
        used = used if began == window else 0
        if used >= most:
            return False
        self._used[key] = (window, used + 1)
        return True


@dataclass(frozen=True, slots=True)
class PayCall:
    """One call whose signature was good."""

    merchant: Merchant
    merchants: Mapping[str, Merchant]
    corp: CorpWorld
    path: Mapping[str, str]
    """Values of the path's parameters."""
    query: Mapping[str, str]
    body: dict[str, Any]
    now_s: int
    """Business time."""
    clock_s: float
    """The platform's own clock: what limits live by."""
    windows: Windows
    base_url: str
    """Scheme and host the caller used: what download addresses begin with."""

    @property
    def rules(self) -> PayRules:
        """Limits of this corp's world."""
        return self.corp.rules_of("pay", PayRules)

    def limit(self, key: str, most: int, length_s: int, *, code: str = "FREQUENCY_LIMITED") -> None:
        """Counts a call in a window. Raises PayError when it is one too many."""
        if not self.windows.take(key, most, length_s, self.clock_s):
            raise PayError(code, f"more than {most} calls in {length_s} s")

    def own_mchid(self, mchid: str) -> None:
        """Raises PayError when a call speaks of another merchant than the one that signed it."""
        if mchid and mchid not in self.merchants:
            raise PayError("MCH_NOT_EXISTS", "no such merchant")
        if mchid and mchid != self.merchant.mchid:
            raise PayError("NO_AUTH", "the merchant is not the one that signed the call")

    def own_appid(self, appid: str) -> None:
        """Raises PayError for an appid that is not bound to the merchant."""
        if appid not in self.merchant.appids:
            raise PayError("APPID_MCHID_NOT_MATCH", "the appid is not bound to the merchant")


PayHandler = Callable[[PayCall], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One path with parameters in braces."""

    method: Method
    pattern: str
    parts: tuple[str, ...]
    handler: PayHandler


@dataclass(slots=True)
class Routes:
    """The calls of one family."""

    routes: list[Route] = field(default_factory=list)

    def on(self, method: Method, pattern: str) -> Callable[[PayHandler], PayHandler]:
        """Declares a call."""

        def declare(handler: PayHandler) -> PayHandler:
            self.routes.append(Route(method, pattern, tuple(pattern.strip("/").split("/")), handler))
            return handler

        return declare


class Table:
    """All calls, found by method and path."""

    def __init__(self, *families: Routes) -> None:
        self.routes = [route for family in families for route in family.routes]
        self._by_length: dict[int, list[Route]] = {}
        for route in self.routes:
            self._by_length.setdefault(len(route.parts), []).append(route)

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's parameters, decoded. Raises PayError NOT_FOUND or METHOD_NOT_ALLOWED."""
        parts = tuple(raw_path.strip("/").split("/"))
        other = False
        for route in self._by_length.get(len(parts), ()):
            values = _match(route.parts, parts)
            if values is None:
                continue
            if route.method == method:
                return route, values
            other = True
        if other:
            raise PayError("METHOD_NOT_ALLOWED", "not by this method")
        raise PayError("NOT_FOUND", "no such interface")


def _match(pattern: tuple[str, ...], parts: tuple[str, ...]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            if not part:
                return None
            values[wanted[1:-1]] = unquote(part)
        elif wanted != part:
            return None
    return values


def page_of(items: Sequence[T], offset: int, limit: int) -> Sequence[T]:
    """Page ``offset`` (from 0) of a list."""
    return items[offset * limit : (offset + 1) * limit]
