"""What a route is: one operation, declared once. The HTTP side, the OpenAPI document and the contract tests are all
made of these declarations, so none of them can say something else than the others.

A handler is an ordinary function from a :class:`Call` to its answer; it runs in a thread, may wait for ClickHouse and
Kafka, and raises ActionsError for everything but success.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from siyu.actions.control import ID_LENGTH, REASON_LENGTH
from siyu.actions.operations import Operations
from siyu.limits import LimitRegistry
from siyu.ops.api_tokens import Principal, Role

Method = Literal["GET", "POST", "DELETE"]

Id = Annotated[str, msgspec.Meta(max_length=ID_LENGTH)]
Reason = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=REASON_LENGTH,
        pattern=r"\S",
        description="Why: kept with the word, for whoever comes after. Names no customer.",
    ),
]


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what comes in and goes out here; more is refused, not ignored."""


class Problem(Wire, frozen=True, kw_only=True):
    """Why there is no answer."""

    code: Annotated[str, msgspec.Meta(description="Machine-readable, from a closed set")]
    message: Annotated[str, msgspec.Meta(description="For people; says what to do")]
    field: Annotated[str | None, msgspec.Meta(description="The field that is wrong, when one is")] = None


class ErrorAnswer(Wire, frozen=True, kw_only=True):
    """Every answer that is none."""

    error: Problem


@dataclass(frozen=True)
class World:
    """What handlers work with."""

    operations: Operations
    limits: Callable[[], LimitRegistry]
    """The last good registry."""


@dataclass(frozen=True)
class Call:
    """One request, parsed and allowed."""

    world: World
    principal: Principal
    path: dict[str, str]
    query: Any
    body: Any


class Forbidden(Exception):
    """The role does not suffice for this request, though it does for others of the route. ``needed`` would."""

    def __init__(self, needed: Role) -> None:
        super().__init__(needed)
        self.needed: Role = needed


@dataclass(frozen=True)
class Route:
    """One operation."""

    method: Method
    path: str
    """With ``{name}`` for parameters, which are ids."""
    name: str
    """operationId; label of metrics and field of the audit log."""
    summary: str
    role: Role
    answer: type[Any]
    handle: Callable[[Call], Any]
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    status: int = 200
    refusals: tuple[int, ...] = ()
    """Of 404 and 409, those that may be answered."""
    may_forbid: bool = False
    """Some requests need a higher role than the route."""

    @property
    def writes(self) -> bool:
        """Whether it is an operator's word: logged with its author."""
        return self.method != "GET"


def needs(call: Call, role: Role) -> None:
    """Raises Forbidden."""
    if not call.principal.may(role):
        raise Forbidden(role)
