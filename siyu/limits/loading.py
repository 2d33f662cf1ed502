"""Makes a registry from files or from its own JSON, or refuses it and says where: file, line and field.

A file is a mapping with any of ``limits``, ``headroom`` and ``margins``; all files of a folder are one registry, and
the JSON form has the same fields. Several entries with one ``id`` are versions of one limit. Nothing is assumed: a
field that nobody knows, an endpoint that is never called, a date without a zone stops the whole registry.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import msgspec
import yaml

from siyu.events.business_time import SHANGHAI
from siyu.events.types import Lane
from siyu.limits.model import (
    Block,
    Calendar,
    Concurrent,
    Counts,
    Enforce,
    Limit,
    LimitRegistry,
    LimitsError,
    LimitSet,
    Margins,
    PerRequest,
    Scope,
    Sliding,
    Version,
    Window,
)
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN

_LANES: tuple[Lane, ...] = get_args(Lane)
_FIXED: dict[str, Window] = {
    "calendar day": Calendar("day"),
    "calendar month": Calendar("month"),
    "concurrent": Concurrent(),
    "request": PerRequest(),
}
_SLIDING = re.compile(r"sliding ([1-9][0-9]{0,5}) (s|min|h|d)")
_UNIT_MS = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_WINDOWS = "sliding <number> s|min|h|d, " + ", ".join(_FIXED)
_ID = re.compile(r"[a-z][a-z0-9_]{0,99}")
_REVISION_DIGITS = 16

Path_ = tuple[str | int, ...]
"""Place in a document: ``("limits", 3, "amount")``."""


class _Dated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    effective_from: str
    """A day (its midnight) or a time with zone, ISO 8601."""
    effective_until: str = ""
    source: str
    confidence: str
    note: str = ""


class _Entry(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    scope: Scope
    window: str
    amount: int
    overrides: str = ""
    """Id of the limit that does not hold where this one does."""
    endpoints: tuple[str, ...] = ()
    but_not: tuple[str, ...] = ()
    corps: tuple[str, ...] = ()
    counts: Counts = "calls"
    block: Block
    paced: bool = False
    enforce: Enforce = "admit"
    ours: bool = False
    outside: bool = False
    field: str = ""
    primary: bool = True


class _Headroom(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    welcome: float
    urgent: float
    bulk: float
    sync: float


class _Margins(_Dated, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    edge_ms: int
    rate_after_error: float
    rate_step: float
    rate_step_ms: int
    rate_floor: float
    slow_once_per_ms: int
    slow_recovery_ms: int


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limits: tuple[_Entry, ...] = ()
    headroom: tuple[_Headroom, ...] = ()
    margins: tuple[_Margins, ...] = ()


D = TypeVar("D", bound=_Dated)


@dataclass(frozen=True)
class _Document:
    """Plain values and where each of them stood."""

    data: Any
    place: Callable[[Path_], str]


@dataclass(frozen=True)
class _Placed:
    """One entry and where it stood."""

    entry: Any
    document: _Document
    path: Path_

    def refuse(self, field: str, message: str) -> NoReturn:
        raise LimitsError(f"{self.document.place((*self.path, field))}: {field}: {message}")


def load_registry(folder: Path) -> LimitRegistry:
    """Reads every ``*.yaml`` of the folder. Raises LimitsError with ``file:line: field: what is wrong``."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise LimitsError(f"{folder}: no limits: there is no *.yaml in it")
    return _registry([_read(path) for path in paths])


def parse_registry(content: bytes) -> LimitRegistry:
    """Reads what :meth:`LimitRegistry.to_json` gave. Raises LimitsError naming the place in the document."""
    try:
        data = json.loads(content)
    except ValueError as error:
        raise LimitsError(f"limits: not JSON: {error}") from None
    except RecursionError:
        raise LimitsError("limits: JSON that is nested too deeply") from None
    return _registry([_Document(data, _json_place)])


def _json_place(path: Path_) -> str:
    return "limits JSON $" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)


# -- YAML with line numbers -------------------------------------------------------------------------------------------


def _read(path: Path) -> _Document:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LimitsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LimitsError(f"{path}: not UTF-8") from None
    lines: dict[Path_, int] = {(): 1}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = {} if root is None else _plain(path, root, (), lines, set())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise LimitsError(f"{path}:{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise LimitsError(f"{path}:1: not YAML: {error}") from None
    except RecursionError:
        raise LimitsError(f"{path}:1: nested too deeply") from None

    def place(at: Path_) -> str:
        while at not in lines:  # a field that is missing stands where its entry begins
            at = at[:-1]
        return f"{path}:{lines[at]}"

    return _Document(data, place)


def _plain(path: Path, node: yaml.Node, at: Path_, lines: dict[Path_, int], seen: set[int]) -> Any:
    """Values of a node; dates stay the text they are. Notes the line of everything below ``at``."""
    line = lines[at] = node.start_mark.line + 1
    if id(node) in seen:  # it may hold itself, and one line may stand for any number of entries
        raise LimitsError(f"{path}:{line}: an alias; write it out where it is meant")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise LimitsError(f"{path}:{line}: a field's name must be a word")
            if key.value in found:
                raise LimitsError(f"{path}:{line}: {key.value}: stands twice")
            found[key.value] = _plain(path, value, (*at, key.value), lines, seen)
            lines[*at, key.value] = line
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, item, (*at, i), lines, seen) for i, item in enumerate(node.value)]
    if node.tag.endswith(":timestamp"):
        return node.value
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (ValueError, OverflowError):
        raise LimitsError(f"{path}:{line}: {at[-1] if at else 'the file'}: not a value that can be read") from None


# -- checks -----------------------------------------------------------------------------------------------------------


def _registry(documents: Sequence[_Document]) -> LimitRegistry:
    limits: list[_Placed] = []
    headroom: list[_Placed] = []
    margins: list[_Placed] = []
    for document in documents:
        file = _converted(document)
        limits += [_Placed(e, document, ("limits", i)) for i, e in enumerate(file.limits)]
        headroom += [_Placed(e, document, ("headroom", i)) for i, e in enumerate(file.headroom)]
        margins += [_Placed(e, document, ("margins", i)) for i, e in enumerate(file.margins)]
    for placed in limits:
        _check_entry(placed)
    for placed in headroom:
        _check_headroom(placed)
    for placed in margins:
        _check_margins(placed)
    for name, there in (("headroom", headroom), ("margins", margins)):
        if not there:
            raise LimitsError(f"{documents[0].place(())}: {name}: no version of it in any file")
    by_id: dict[str, list[_Placed]] = {}
    for placed in limits:
        by_id.setdefault(placed.entry.id, []).append(placed)
    dated = {name: _dated(name, versions) for name, versions in sorted(by_id.items())}
    for versions in dated.values():
        _check_versions(versions)
    _check_overrides(dated)
    dated_headroom, dated_margins = _dated("headroom", headroom), _dated("margins", margins)
    content = _canonical(
        limits=[placed for versions in dated.values() for _, _, placed in versions],
        headroom=[placed for _, _, placed in dated_headroom],
        margins=[placed for _, _, placed in dated_margins],
    )
    registry = LimitRegistry(
        revision=hashlib.sha256(content).hexdigest()[:_REVISION_DIGITS],
        limits={
            name: tuple(Version(begins, ends, _limit(placed.entry)) for begins, ends, placed in versions)
            for name, versions in dated.items()
        },
        headroom=tuple(
            Version(begins, ends, {lane: float(getattr(placed.entry, lane)) for lane in _LANES})
            for begins, ends, placed in dated_headroom
        ),
        margins=tuple(Version(begins, ends, _margins_of(placed.entry)) for begins, ends, placed in dated_margins),
        content=content,
    )
    _check_ambiguity(registry, dated)
    _check_cover(registry, dated, documents[0])
    return registry


_MSGSPEC_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_MSGSPEC_FIELD = re.compile(r"(?:unknown|required) field `(?P<field>[^`]+)`")


def _converted(document: _Document) -> _File:
    try:
        return msgspec.convert(document.data, type=_File)
    except msgspec.ValidationError as error:
        message = str(error)
        at: list[str | int] = []
        if found := _MSGSPEC_PLACE.search(message):
            message = message[: found.start()]
            for name, index in re.findall(r"\.([A-Za-z_]+)|\[([0-9]+)\]", found["path"]):
                at.append(name or int(index))
        if named := _MSGSPEC_FIELD.search(message):
            at.append(named["field"])
        field = next((part for part in reversed(at) if isinstance(part, str)), "")
        raise LimitsError(f"{document.place(tuple(at))}: {field + ': ' if field else ''}{message}") from None


def _check_entry(placed: _Placed) -> None:
    entry: _Entry = placed.entry
    _check_words(placed)
    if not _ID.fullmatch(entry.id):
        placed.refuse("id", "needs lower case letters, digits and _, a letter first")
    if entry.amount <= 0:
        placed.refuse("amount", f"must be positive, not {entry.amount}")
    window = _window(entry.window)
    if window is None:
        placed.refuse("window", f"unknown window {entry.window!r}; there are {_WINDOWS}")
    if (entry.scope == "request") != isinstance(window, PerRequest):
        placed.refuse("window", "the window request and the scope request belong together")
    if entry.scope == "request":
        if not entry.field:
            placed.refuse("field", "a limit of one request names the list whose entries it counts")
        if not entry.endpoints:
            placed.refuse("endpoints", "a limit of one request names its endpoints")
    elif entry.field or not entry.primary:
        placed.refuse("field" if entry.field else "primary", "only scope request has lists")
    if entry.paced and not isinstance(window, Calendar):
        placed.refuse("paced", "only a calendar quota is spread over its window")
    if entry.but_not and entry.endpoints:
        placed.refuse("but_not", "excepts from every endpoint; this limit names its endpoints")
    for name in ("endpoints", "but_not", "corps"):
        named: tuple[str, ...] = getattr(entry, name)
        if len(set(named)) < len(named):
            placed.refuse(name, "one stands twice")
    known = [e for e in entry.endpoints if e in ENDPOINTS or e == GETTOKEN]
    unknown = [e for e in (*entry.endpoints, *entry.but_not) if e not in ENDPOINTS and e != GETTOKEN]
    if entry.outside and known:
        placed.refuse("outside", f"{known[0]} is called by this system: the limit is not outside of it")
    if unknown and not entry.outside:
        placed.refuse(
            "endpoints" if unknown[0] in entry.endpoints else "but_not",
            f"{unknown[0]!r} is not called by this system; a limit that is only documented has outside: true",
        )
    if any(not corp or "|" in corp or "/" in corp for corp in entry.corps):
        placed.refuse("corps", "a corp id is empty or holds | or /")


def _check_words(placed: _Placed) -> None:
    for name in ("source", "confidence"):
        if not getattr(placed.entry, name).strip():
            placed.refuse(name, "must say something")


def _check_headroom(placed: _Placed) -> None:
    _check_words(placed)
    shares = [getattr(placed.entry, lane) for lane in _LANES]
    for lane, share in zip(_LANES, shares, strict=True):
        if not 0 < share <= 1:
            placed.refuse(lane, f"a share above 0 and at most 1, not {share:g}")


def _check_margins(placed: _Placed) -> None:
    _check_words(placed)
    entry: _Margins = placed.entry
    for name in ("edge_ms", "rate_step_ms", "slow_once_per_ms", "slow_recovery_ms"):
        if getattr(entry, name) <= 0:
            placed.refuse(name, f"must be positive, not {getattr(entry, name)}")
    for name in ("rate_after_error", "rate_step", "rate_floor"):
        if not 0 < getattr(entry, name) <= 1:
            placed.refuse(name, f"a share above 0 and at most 1, not {getattr(entry, name):g}")
    if entry.rate_after_error == 1:
        placed.refuse("rate_after_error", "1 would change nothing after a limit error")


def _window(text: str) -> Window | None:
    if found := _SLIDING.fullmatch(text):
        return Sliding(int(found[1]) * _UNIT_MS[found[2]])
    return _FIXED.get(text)


# -- dates ------------------------------------------------------------------------------------------------------------

_DatedVersion = tuple[int, int | None, _Placed]


def _dated(name: str, versions: Iterable[_Placed]) -> list[_DatedVersion]:
    """Begin, end and entry by ascending begin. An end is only where an entry names one."""
    found: list[_DatedVersion] = []
    for placed in versions:
        begins = _moment(placed, "effective_from")
        ends = _moment(placed, "effective_until") if placed.entry.effective_until else None
        if ends is not None and ends <= begins:
            placed.refuse("effective_until", "is not after effective_from")
        found.append((begins, ends, placed))
    found.sort(key=lambda item: item[0])
    for (begins, ends, _), (again, _, later) in itertools.pairwise(found):
        if begins == again:
            later.refuse("effective_from", f"{name} has two versions from {later.entry.effective_from}")
        if ends is not None and ends > again:
            later.refuse("effective_from", f"overlaps with the version of {name} before it, which says when it ends")
        if ends is not None and ends < again:
            later.refuse("effective_from", f"leaves a gap behind the version of {name} before it")
    return found


def _moment(placed: _Placed, field: str) -> int:
    text: str = getattr(placed.entry, field)
    try:
        if len(text) == len("2026-01-01"):
            time = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), SHANGHAI)
        else:
            time = dt.datetime.fromisoformat(text)
        if time.tzinfo is not None:
            time = time.astimezone(SHANGHAI)
    except (ValueError, OverflowError):
        placed.refuse(field, f"{text!r} is neither a day nor a time; write 2026-01-01 or 2026-01-01T12:00:00+08:00")
    if time.tzinfo is None:
        placed.refuse(field, f"{text!r} has no zone; write 2026-01-01T12:00:00+08:00")
    moment = time - _EPOCH
    if moment < dt.timedelta(0):
        placed.refuse(field, f"{text!r} is before 1970")
    if moment.microseconds % 1000:
        placed.refuse(field, f"{text!r} is finer than a millisecond")
    return moment // dt.timedelta(milliseconds=1)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def moment_text(moment_ms: int) -> str:
    """The canonical way to write a moment (epoch ms): a day where it is a midnight of business time."""
    time = (_EPOCH + dt.timedelta(milliseconds=moment_ms)).astimezone(SHANGHAI)
    if time.time() == dt.time():
        return time.date().isoformat()
    return time.isoformat(timespec="milliseconds" if moment_ms % 1000 else "seconds")


# -- between entries --------------------------------------------------------------------------------------------------


def _check_versions(versions: Sequence[_DatedVersion]) -> None:
    first: _Entry = versions[0][2].entry
    for _, _, placed in versions[1:]:
        entry: _Entry = placed.entry
        for name in ("scope", "window", "field", "overrides"):
            was, now = getattr(first, name), getattr(entry, name)
            if (_window(was) != _window(now)) if name == "window" else (was != now):
                placed.refuse(name, f"{entry.id} had another {name} before; give it another id")


def _check_overrides(dated: dict[str, list[_DatedVersion]]) -> None:
    for versions in dated.values():
        for _, _, placed in versions:
            name = placed.entry.overrides
            if not name:
                continue
            if name not in dated:
                placed.refuse("overrides", f"there is no limit {name!r}")
            base: _Entry = dated[name][0][2].entry
            if base.overrides:
                placed.refuse("overrides", f"{name} overrides {base.overrides} itself; name that")
            if base.scope != placed.entry.scope or base.field != placed.entry.field:
                placed.refuse("overrides", f"{name} is of another scope or list")


def _check_ambiguity(registry: LimitRegistry, dated: dict[str, list[_DatedVersion]]) -> None:
    """At no time two limits that could both be the one that holds."""
    for moment in registry.changes_ms:
        in_force = registry.at(moment)
        families: dict[str, list[Limit]] = {}
        lists: dict[str, list[Limit]] = {}
        for limit in in_force.limits:
            if limit.outside:
                continue
            families.setdefault(limit.family, []).append(limit)
            if limit.scope == "request" and limit.primary:
                for endpoint in limit.endpoints:
                    lists.setdefault(endpoint, []).append(limit)
        for members in families.values():
            for one, other in itertools.combinations(members, 2):
                if one.rank == other.rank and _meet(one, other):
                    blamed, against = (other, one) if other.family != other.id else (one, other)
                    _placed_at(dated, blamed, moment).refuse(
                        "overrides", f"{against.id} holds for the same calls, and neither is the more specific"
                    )
        for endpoint, primaries in lists.items():
            for one, other in itertools.combinations(primaries, 2):
                if one.family != other.family:
                    _placed_at(dated, other, moment).refuse(
                        "primary", f"{one.id} is what a large call to {endpoint} is cut by; say primary: false"
                    )


def _meet(one: Limit, other: Limit) -> bool:
    """Whether a call may exist that both are about."""
    endpoints = not one.endpoints or not other.endpoints or set(one.endpoints) & set(other.endpoints)
    corps = not one.corps or not other.corps or set(one.corps) & set(other.corps)
    return bool(endpoints and corps)


def _placed_at(dated: dict[str, list[_DatedVersion]], limit: Limit, moment: int) -> _Placed:
    return next(placed for begins, _, placed in reversed(dated[limit.id]) if begins <= moment)


def _check_cover(registry: LimitRegistry, dated: dict[str, list[_DatedVersion]], document: _Document) -> None:
    """Every endpoint has a window and a concurrency from the time the first has them: a limit that ends must not let
    everything through."""
    complete, missing = False, None
    for moment in registry.changes_ms:
        missing = next((m for e in (*ENDPOINTS, GETTOKEN) if (m := _uncovered(registry.at(moment), e))), None)
        if complete and missing:
            message = f"{missing} from {moment_text(moment)} on"
            versions = list(itertools.chain.from_iterable(dated.values()))
            for _, ends, placed in versions:
                if ends == moment:
                    placed.refuse("effective_until", message)
            for begins, _, placed in versions:
                if begins == moment:
                    placed.refuse("effective_from", message)
            raise LimitsError(f"{document.place(())}: limits: {message}")
        complete = complete or missing is None
    if not complete:
        raise LimitsError(f"{document.place(())}: limits: {missing or 'there are none'}")


def _uncovered(in_force: LimitSet, endpoint: str) -> str | None:
    windows = [limit.window for limit in in_force.of("", endpoint)]
    if not any(isinstance(window, Concurrent) for window in windows):
        return f"{endpoint} has no limit of calls at the same time"
    if not any(isinstance(window, Sliding | Calendar) for window in windows):
        return f"{endpoint} has no limit of calls in a window"
    return None


# -- what comes out ---------------------------------------------------------------------------------------------------


def _limit(entry: _Entry) -> Limit:
    window = _window(entry.window)
    assert window is not None
    return Limit(
        id=entry.id,
        scope=entry.scope,
        endpoints=tuple(sorted(entry.endpoints)),
        corps=tuple(sorted(entry.corps)),
        amount=entry.amount,
        window=window,
        counts=entry.counts,
        block=entry.block,
        paced=entry.paced,
        enforce=entry.enforce,
        ours=entry.ours,
        source=entry.source,
        confidence=entry.confidence,
        note=entry.note,
        family=entry.overrides or entry.id,
        but_not=tuple(sorted(entry.but_not)),
        outside=entry.outside,
        field=entry.field,
        primary=entry.primary,
    )


def _margins_of(entry: _Margins) -> Margins:
    return Margins(**{name: getattr(entry, name) for name in Margins.__dataclass_fields__})


def _canonical(**sections: list[_Placed]) -> bytes:
    """Sorted entries, dates and windows in one spelling, no defaults: what a revision is the hash of."""
    document = {name: [_canonical_entry(placed) for placed in entries] for name, entries in sections.items() if entries}
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _canonical_entry(placed: _Placed) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(placed.entry)
    if "window" in fields:
        fields["window"] = str(_window(fields["window"]))
    for name in ("effective_from", "effective_until"):
        if name in fields:
            fields[name] = moment_text(_moment(placed, name))
    for name in ("endpoints", "but_not", "corps"):
        if name in fields:
            fields[name] = sorted(fields[name])
    return fields
