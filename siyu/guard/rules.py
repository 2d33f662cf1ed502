"""The guard's rules as data: dated versions from ``schemas/rules/guard.yaml``, validated whole when loaded.

A file that contradicts itself is refused with line and field, and nothing of it is used.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from siyu.ops.dated import ByDate, beijing_midnight_ms
from siyu.wecom.endpoints import ENDPOINTS

Level = Literal["staff", "corp", "campaign"]
"""Whose account: a staff member's, the corp's; a campaign has none, but it can be stopped."""
Effect = Literal["points", "pause", "ladder", "stop"]

CAMPAIGN_PREFIX = "~"
"""A campaign stands where a staff id would: ``corp|~campaign``. No userid begins like that."""
MANUAL_KINDS = ("stop", "lift_request", "lift_approve", "lift_reject")
"""What a person says; they are no entry of the rules, because they weigh nothing."""
TOUCH, ACTIVE_ADDS, ACCOUNT_CREATED = "touch", "active_adds", "account_created"
STAFF_TOUCH = "staff_touch"
"""What the guard tells the corp of a touch."""
FACT_KINDS = (TOUCH, ACTIVE_ADDS, ACCOUNT_CREATED, STAFF_TOUCH)
"""What happened, without an effect of its own: people written to, people added, how old the account is."""

_RESERVED = frozenset((*MANUAL_KINDS, *FACT_KINDS, "risk", "velocity", "deletions", "concerted"))


class RulesError(ValueError):
    """A rules file that cannot be used; the message names file, line and field."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what stands in the file."""


class SignalRule(_Part, frozen=True):
    """What one kind of sign does to one level. Times in ms of business time."""

    kind: str
    at: Level
    effect: Effect
    source: str
    points: float = 0.0
    points_max: float = 0.0
    half_life_ms: int = 0
    pause_ms: int = 0
    tells_corp: str = ""
    tells_campaign: str = ""

    def score(self, count: int) -> float:
        """Points of one sign with that count."""
        points = self.points * count
        return min(points, self.points_max) if self.points_max else points


class ErrcodeRule(_Part, frozen=True):
    """What an answer of the platform is a sign of."""

    codes: tuple[int, ...]
    kind: str
    at: Literal["staff", "corp"]
    tell: Literal["at_once", "by_minute"]
    without_staff: Literal["", "corp"] = ""
    """What it is about when the call names no staff member; empty: then it is no sign."""
    opens_ms: int = 0


class Ladder(_Part, frozen=True):
    """Cool-downs, ms. Behind the last step: until a person lifts it."""

    steps_ms: tuple[int, ...]
    reset_after_ms: int


class AllowanceStep(_Part, frozen=True):
    """From this risk on."""

    risk_from: float
    percent: int


class Score(_Part, frozen=True):
    """From points to trust."""

    watched_from: float
    trip_at: float
    kept_at_trip_percent: float
    review_ms: int
    allowance: tuple[AllowanceStep, ...]
    after_cooling_percent: int

    def percent(self, risk: float) -> int:
        """The share of our own limits an account at this risk may use."""
        return [step.percent for step in self.allowance if step.risk_from <= risk][-1]


class VelocityRule(_Part, frozen=True):
    """More than ``above`` within a sliding window."""

    id: str
    of: Literal["adds", "active_adds", "touches"]
    window_ms: int
    above: int
    account_younger_ms: int
    points: float
    source: str


class Deletions(_Part, frozen=True):
    """Losses after touch, by business day."""

    within_days: int
    tolerated_percent: float
    at_least: int
    points: float
    points_max: float
    half_life_ms: int
    source: str


class ConcertedStep(_Part, frozen=True):
    """So many staff within the window."""

    staff: int
    points: float


class Concerted(_Part, frozen=True):
    """Many staff of a corp who write for one campaign at the same time."""

    window_ms: int
    steps: tuple[ConcertedStep, ...]
    half_life_ms: int
    source: str


class Lift(_Part, frozen=True):
    """How long a request to lift may wait for its second person."""

    request_valid_ms: int


class BreakerRule(_Part, frozen=True):
    """Opens when at least ``calls`` within the window failed at ``failure_percent`` or more."""

    window_ms: int
    calls: int
    failure_percent: float
    open_ms: int
    longest_ms: int


class Breakers(_Part, frozen=True):
    """The executor's own."""

    corp_api: BreakerRule
    staff: BreakerRule
    counts_corp_api: frozenset[int]
    counts_staff: frozenset[int]
    no_answer_counts: bool
    hold_ms: int


class Rules(_Part, frozen=True):
    """One version."""

    version: str
    effective_from: datetime.date
    source: str
    confidence: str
    ladder: Ladder
    score: Score
    signals: tuple[SignalRule, ...]
    errcodes: tuple[ErrcodeRule, ...]
    velocity: tuple[VelocityRule, ...]
    velocity_half_life_ms: int
    late_ms: int
    deletions: Deletions
    concerted: Concerted
    lift: Lift
    always_allowed: frozenset[str]
    breaker: Breakers


class _File(_Part, frozen=True):
    versions: tuple[Rules, ...]


class InForce:
    """One version, with what is looked up often in dictionaries."""

    __slots__ = ("errcodes", "rules", "signals", "velocity")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.signals: Mapping[tuple[str, Level], SignalRule] = {(rule.kind, rule.at): rule for rule in rules.signals}
        self.errcodes: Mapping[int, ErrcodeRule] = {code: rule for rule in rules.errcodes for code in rule.codes}
        self.velocity: Mapping[str, tuple[VelocityRule, ...]] = {
            of: tuple(rule for rule in rules.velocity if rule.of == of) for of in ("adds", "active_adds", "touches")
        }


class RuleBook:
    """All versions, oldest first."""

    def __init__(self, versions: tuple[Rules, ...]) -> None:
        self.versions = tuple(map(InForce, versions))
        self._by_date = ByDate([(beijing_midnight_ms(v.rules.effective_from), v) for v in self.versions])

    def at(self, business_ms: int) -> InForce:
        """The version in force at a business time; before the first one, the first."""
        return self._by_date.at(business_ms)

    @property
    def kinds(self) -> frozenset[str]:
        """Every kind of signal that any version, or the guard itself, knows."""
        return frozenset(
            (*MANUAL_KINDS, *FACT_KINDS, *(rule.kind for version in self.versions for rule in version.rules.signals))
        )


def level_of(staff_id: str) -> Level:
    """Whose account a record is about, by what stands where the staff id stands."""
    if not staff_id:
        return "corp"
    return "campaign" if staff_id.startswith(CAMPAIGN_PREFIX) else "staff"


def campaign_member(campaign_id: str) -> str:
    """What stands for a campaign where a staff id would."""
    return CAMPAIGN_PREFIX + campaign_id


def load_rules(path: Path) -> RuleBook:
    """Reads and validates the file. Raises RulesError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"{path}: cannot be read ({type(error).__name__})") from None
    return parse_rules(text, str(path))


def parse_rules(text: str, name: str) -> RuleBook:
    """Validates the text of a rules file; ``name`` is what messages call it. Raises RulesError."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise RulesError(f"{name}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RulesError(f"{name}:1: not YAML: {type(error).__name__}") from None
    if tree is None:
        raise RulesError(f"{name}:1: the file is empty")
    file = _Source(name, tree)
    file.refuse_repeated_keys()
    try:
        versions = msgspec.convert(data, type=_File).versions
    except msgspec.ValidationError as error:
        what, _, path = str(error).rpartition(" - at `")
        raise file.error(path.rstrip("`") or "$", what or str(error)) from None
    if not versions:
        raise file.error("$.versions", "there is no version")
    for number, (earlier, later) in enumerate(itertools.pairwise(versions), 1):
        if later.effective_from <= earlier.effective_from:
            raise file.error(f"$.versions[{number}].effective_from", "versions must have ascending dates")
    if len({version.version for version in versions}) != len(versions):
        raise file.error("$.versions", "two versions have one name")
    for number, version in enumerate(versions):
        for field, problem in _problems(version):
            raise file.error(f"$.versions[{number}].{field}", problem)
    return RuleBook(versions)


_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")


class _Source:
    """The file as it is written, for messages that name the line."""

    def __init__(self, name: str, tree: yaml.Node) -> None:
        self._name = name
        self._tree = tree

    def error(self, path: str, problem: str) -> RulesError:
        """``path`` as msgspec writes it: ``$.versions[0].ladder``."""
        return RulesError(f"{self._name}:{self._line(path)}: {path.removeprefix('$.')}: {problem}")

    def refuse_repeated_keys(self) -> None:
        """YAML would silently use the last of two. Raises RulesError."""
        todo = [self._tree]
        while todo:
            node = todo.pop()
            if isinstance(node, yaml.SequenceNode):
                todo.extend(node.value)
            elif isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, value in node.value:
                    if key.value in seen:
                        raise RulesError(f"{self._name}:{key.start_mark.line + 1}: {key.value}: stands twice")
                    seen.add(key.value)
                    todo.append(value)

    def _line(self, path: str) -> int:
        node = self._tree
        line = node.start_mark.line
        for field, position in _STEP.findall(path):
            if field and isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == field]
                if not found:
                    break
                line, node = found[0][0].start_mark.line, found[0][1]
            elif position.isdigit() and isinstance(node, yaml.SequenceNode) and int(position) < len(node.value):
                node = node.value[int(position)]
                line = node.start_mark.line
            else:
                break
        return int(line) + 1


def _problems(rules: Rules) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) of what the types do not say."""
    steps = rules.ladder.steps_ms
    if not steps or steps[0] <= 0 or any(b <= a for a, b in itertools.pairwise(steps)):
        yield "ladder.steps_ms", "needs at least one step, each longer than the one before"
    if rules.ladder.reset_after_ms <= 0:
        yield "ladder.reset_after_ms", "must be positive"
    yield from _score_problems(rules.score)
    yield from _signal_problems(rules)
    yield from _errcode_problems(rules)
    if len({rule.id for rule in rules.velocity}) != len(rules.velocity):
        yield "velocity", "two rules have one id"
    for number, velocity in enumerate(rules.velocity):
        if velocity.window_ms <= 0 or velocity.window_ms % 6:
            yield f"velocity[{number}].window_ms", "must be positive and divisible by 6"
        if velocity.above < 0 or velocity.points <= 0 or velocity.account_younger_ms < 0:
            yield f"velocity[{number}]", "above and account_younger_ms must not be negative, points must be positive"
    for field in ("velocity_half_life_ms", "late_ms"):
        if getattr(rules, field) <= 0:
            yield field, "must be positive"
    deletions = rules.deletions
    if not 1 <= deletions.within_days <= 30:
        yield "deletions.within_days", "must be 1 to 30"
    if not 0 <= deletions.tolerated_percent <= 100:
        yield "deletions.tolerated_percent", "must be 0 to 100"
    if deletions.at_least < 1 or deletions.points <= 0 or deletions.points_max <= 0 or deletions.half_life_ms <= 0:
        yield "deletions", "at_least, points, points_max and half_life_ms must be positive"
    concerted = rules.concerted
    if concerted.window_ms <= 0 or concerted.half_life_ms <= 0:
        yield "concerted", "window_ms and half_life_ms must be positive"
    if not concerted.steps or any(
        b.staff <= a.staff or b.points <= a.points for a, b in itertools.pairwise(concerted.steps)
    ):
        yield "concerted.steps", "needs at least one step, each with more staff and more points than the one before"
    for number, step in enumerate(concerted.steps):
        if step.staff < 1 or step.points <= 0:
            yield f"concerted.steps[{number}]", "staff and points must be positive"
    if rules.lift.request_valid_ms <= 0:
        yield "lift.request_valid_ms", "must be positive"
    for endpoint in sorted(rules.always_allowed):
        if endpoint not in ENDPOINTS:
            yield "always_allowed", f"unknown endpoint {endpoint!r}"
    for name, breaker in (("corp_api", rules.breaker.corp_api), ("staff", rules.breaker.staff)):
        if not 0 < breaker.failure_percent <= 100:
            yield f"breaker.{name}.failure_percent", "must be above 0, at most 100"
        if breaker.window_ms <= 0 or breaker.calls < 1 or not 0 < breaker.open_ms <= breaker.longest_ms:
            yield f"breaker.{name}", "window_ms, calls, open_ms must be positive, longest_ms at least open_ms"
    if rules.breaker.hold_ms <= 0:
        yield "breaker.hold_ms", "must be positive"


def _score_problems(score: Score) -> Iterator[tuple[str, str]]:
    steps = score.allowance
    if not steps or steps[0].risk_from != 0:
        yield "score.allowance", "must begin at risk 0"
    for number, step in enumerate(steps):
        if not 1 <= step.percent <= 100:
            yield f"score.allowance[{number}].percent", "must be 1 to 100"
        if number and (step.risk_from <= steps[number - 1].risk_from or step.percent > steps[number - 1].percent):
            yield f"score.allowance[{number}]", "a higher risk must not be allowed more, and risks must ascend"
    if not 0 < score.watched_from <= score.trip_at:
        yield "score.watched_from", "must be above 0 and at most trip_at"
    if not 0 <= score.kept_at_trip_percent < 100:
        yield "score.kept_at_trip_percent", "must be 0 to below 100"
    if score.review_ms <= 0:
        yield "score.review_ms", "must be positive"
    if not 1 <= score.after_cooling_percent <= 100:
        yield "score.after_cooling_percent", "must be 1 to 100"


def _signal_problems(rules: Rules) -> Iterator[tuple[str, str]]:
    known = {(rule.kind, rule.at) for rule in rules.signals}
    if len(known) != len(rules.signals):
        yield "signals", "a kind stands twice at one level"
    for number, rule in enumerate(rules.signals):
        where = f"signals[{number}]"
        if rule.kind in _RESERVED or not re.fullmatch(r"[a-z][a-z_]{0,39}", rule.kind):
            yield f"{where}.kind", "must be a word of its own in small letters"
        if rule.effect == "points" and rule.points <= 0:
            yield f"{where}.points", "an effect of points needs some"
        if rule.points < 0 or rule.points_max < 0 or (rule.points > 0) != (rule.half_life_ms > 0):
            yield f"{where}.half_life_ms", "points and a half-life belong together, both positive"
        if (rule.effect == "pause") != (rule.pause_ms > 0):
            yield f"{where}.pause_ms", "belongs to the effect pause, positive"
        if rule.tells_corp and (rule.at != "staff" or (rule.tells_corp, "corp") not in known):
            yield f"{where}.tells_corp", "names a kind at corp, and stands at staff"
        if rule.tells_campaign and (rule.at == "campaign" or (rule.tells_campaign, "campaign") not in known):
            yield f"{where}.tells_campaign", "names a kind at campaign, and does not stand there"
    if ("staff_cooled", "corp") not in known:
        yield "signals", "staff_cooled at corp is missing: the guard itself tells of it"


def _errcode_problems(rules: Rules) -> Iterator[tuple[str, str]]:
    signals = {(rule.kind, rule.at): rule for rule in rules.signals}
    seen: set[int] = set()
    for number, rule in enumerate(rules.errcodes):
        where = f"errcodes[{number}]"
        if not rule.codes or 0 in rule.codes or seen & set(rule.codes) or len(set(rule.codes)) != len(rule.codes):
            yield f"{where}.codes", "needs codes, each once in the version, and never 0"
        seen |= set(rule.codes)
        signal = signals.get((rule.kind, rule.at))
        if signal is None:
            yield f"{where}.kind", f"signals has no {rule.kind} at {rule.at}"
        elif rule.tell == "by_minute" and signal.effect != "points":
            yield f"{where}.tell", "only points can wait for the minute to end"
        if rule.without_staff and (rule.at != "staff" or (rule.kind, "corp") not in signals):
            yield f"{where}.without_staff", f"signals has no {rule.kind} at corp, or the code is the corp's already"
        if rule.opens_ms < 0:
            yield f"{where}.opens_ms", "must not be negative"
