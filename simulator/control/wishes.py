"""What can be asked of ``/_sim/…``, read strictly: an unknown field, a wrong type or value is refused with its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from simulator.platform.faults import Fault

W = TypeVar("W", bound=msgspec.Struct)
_WHOLE = re.compile(r"-?[0-9]{1,16}")
_MANY = 1_000_000_000
_YEAR_S = 366 * 86_400.0


class BadWish(ValueError):
    """A request that cannot be understood; says which field and why."""


class ClockChange(msgspec.Struct, forbid_unknown_fields=True):
    """One of the three. ``rate``: business seconds a second; ``advance_s``: jump so far; ``pause``: stand still."""

    rate: float | None = None
    advance_s: float | None = None
    pause: bool | None = None

    def check(self) -> None:
        if sum((self.rate is not None, self.advance_s is not None, self.pause is True)) != 1:
            raise BadWish('one of {"rate": n}, {"advance_s": n} and {"pause": true} is needed')


class FaultWish(msgspec.Struct, forbid_unknown_fields=True):
    """A fault to put in force (``simulator.platform.faults``)."""

    endpoint: str = "*"
    corp_id: str = ""
    errcode: int = 0
    latency_ms: float = 0.0
    share: float = 1.0
    after_effect: bool = False
    calls: int = 0
    """So many calls; 0: no such end."""
    seconds: float = 0.0
    """So long by the platform's clock; 0: no such end."""

    def fault(self, clock_s: float) -> Fault:
        """Raises BadFault (a ValueError) for values that make no sense."""
        if not 0 <= self.seconds <= _YEAR_S:
            raise BadWish(f"seconds: 0 to {_YEAR_S:.0f}")
        if not 0 <= self.latency_ms <= 600_000:
            raise BadWish("latency_ms: 0 to 600000")
        if not 0 <= self.calls <= _MANY:
            raise BadWish(f"calls: 0 to {_MANY}")
        if not self.endpoint:
            raise BadWish("endpoint: a path below /cgi-bin/, * and ? are wild")
        return Fault(
            endpoint=self.endpoint,
            corp_id=self.corp_id,
            errcode=self.errcode,
            latency_ms=self.latency_ms,
            share=self.share,
            after_effect=self.after_effect,
            calls_left=self.calls,
            until_s=clock_s + self.seconds if self.seconds else 0.0,
        )


class BlockWish(msgspec.Struct, forbid_unknown_fields=True):
    """45009 for a corp and an API (``*``: all of them) for so many seconds of the platform's clock."""

    corp_id: str
    endpoint: str
    seconds: float = 60.0

    def check(self) -> None:
        if not 0 < self.seconds <= _YEAR_S:
            raise BadWish(f"seconds: more than 0, at most {_YEAR_S:.0f}")


class TokenWish(msgspec.Struct, forbid_unknown_fields=True):
    """The platform withdraws the tokens of a corp, or of one app of it."""

    corp_id: str
    agent_id: str = ""


class StaffWish(msgspec.Struct, forbid_unknown_fields=True):
    """A staff member to ban or to pardon. ``seconds`` of business time; 0: for good."""

    corp_id: str
    staff_id: str
    seconds: int = 0

    def check(self) -> None:
        if not 0 <= self.seconds <= _YEAR_S:
            raise BadWish(f"seconds: 0 to {_YEAR_S:.0f}")


class ComplaintWish(msgspec.Struct, forbid_unknown_fields=True):
    """A customer reports a staff member to the platform."""

    corp_id: str
    staff_id: str
    customer_id: str
    ref: str = ""


class LossWish(msgspec.Struct, forbid_unknown_fields=True):
    """Share of the callbacks that are never sent, from now on."""

    share: float

    def check(self) -> None:
        if not 0 <= self.share <= 1:
            raise BadWish("share: 0 to 1")


def read(content: bytes, kind: type[W]) -> W:
    """The body as ``kind``. Raises BadWish."""
    try:
        wish = msgspec.json.decode(content or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadWish(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadWish("the body is no JSON object") from None
    check = getattr(wish, "check", None)
    if check is not None:
        check()
    return wish


def whole(
    query: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int = 9_007_199_254_740_991
) -> int:
    """A whole number of a query string. Raises BadWish."""
    text = query.get(name)
    if text is None:
        return default
    number = int(text) if _WHOLE.fullmatch(text) else None
    if number is None or not least <= number <= most:
        raise BadWish(f"{name}: a whole number from {least} to {most}")
    return number


def known(query: Mapping[str, str], *names: str) -> None:
    """Raises BadWish for a parameter that means nothing here: a typing error would silently select everything."""
    for name in query:
        if name not in names:
            raise BadWish(f"{name}: no such parameter; there are {', '.join(names) or 'none'}")
