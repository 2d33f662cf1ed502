"""Scenario files: one readable YAML each, checked down to the field, with the line of what is wrong in the message.

A file tells either a ``day`` (the invented one, planned as a whole) or a ``population`` and its ``story`` (a living
world). Shares are between 0 and 1, amounts fen, ``…_s`` seconds of story time, rates are per story day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from simulator.apps import App
from simulator.scenario import CannotPlay
from simulator.scenario.day import Day
from simulator.scenario.effects import Effects, Share
from simulator.scenario.sections import SECTIONS, rules_of_section
from simulator.settings import SimulatorSettings
from simulator.world.opening import Channel, Population

Rate = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


class ScenarioError(CannotPlay):
    """A scenario file that cannot be read or makes no sense: says file, line, field and what is wrong."""


class Story(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much happens. Rates are per story day."""

    duration_s: Whole = 0
    """The story's length on the clock; 0: it goes on until the process ends."""
    pace: Positive = 1.0
    """Story days that pass in one day of the clock: 5,000 makes six days of a hundred seconds, around the clock; 1
    keeps real rates and opening hours."""
    adds_per_staff: Rate = 1.0
    half_share: Share = 0.08
    """Of adds begin by half,"""
    half_confirmed_share: Share = 0.6
    """of which so many are confirmed by the staff member."""
    from_known_share: Share = 0.10
    """Of adds are of customers whom somebody else has already,"""
    from_groups_share: Share = 0.03
    """and of people who had been in groups only."""
    deleted_by_customer_per_1000: Rate = 1.0
    """Of the friends, a day."""
    deleted_by_staff_per_1000: Rate = 0.3
    second_deletion_share: Share = 0.2
    """After one side has deleted, the other does too,"""
    return_share: Share = 0.15
    """or the customer comes back."""
    return_median_days: Positive = 5.0
    edits_per_staff: Rate = 0.5
    """Remarks and tags changed in the client."""
    chats_per_staff: Rate = 5.0
    """Conversations begun by a customer."""
    answered_share: Share = 0.8
    answer_median_s: Positive = 300.0
    group_joins: Rate = 0.3
    """Of customers into a group, by its code,"""
    group_quits: Rate = 0.1
    """and out of it: each group, a day."""
    code_scans: Rate = 3.0
    """Of each contact way that was made through the API,"""
    link_visits: Rate = 5.0
    """of each acquisition link,"""
    join_way_scans: Rate = 3.0
    """and of each join way of groups: a day."""
    complaints_per_million: Rate = 5.0
    """Of the friends, a day, whatever anybody does."""
    leavers_per_1000: Rate = 0.5
    """Of the staff."""
    hours: Literal["shop", "flat"] = "shop"
    """When things happen: as in shops, or evenly; a pace other than 1 is always even."""


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that is used up and bought again."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
    share: Share
    """Of the buyers; shares of all items are made to sum up to 1."""
    cycle_days: Positive
    """How long it lasts."""
    cycle_spread: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.3
    """Sigma of the logarithm of that, from person to person."""
    early_late_share: Annotated[float, msgspec.Meta(ge=0, le=0.45)] = 0.15
    """Of the cycle: so far from the day of depletion people buy, to both sides."""
    price_fen: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]]
    """Least and most."""

    def __post_init__(self) -> None:
        if self.price_fen[0] > self.price_fen[1]:
            raise ValueError("price_fen: least and most, ascending")


class Refunds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of purchases."""

    share: Share = 0.06
    partial_share: Share = 0.4
    several_share: Share = 0.1
    """Of the partial ones come in two or three parts."""
    rejected_share: Share = 0.05
    """Are asked for and never paid out."""
    median_days: Positive = 5.0
    within_days: Annotated[float, msgspec.Meta(gt=0, le=366)] = 90.0


class Shopping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who buys what, and how that shows in the bills."""

    buyers_share: Share = 0.04
    """Of customers buy by a cycle of their own."""
    items: tuple[Item, ...] = ()
    colleague_share: Share = 0.08
    """Collected by another member of the store,"""
    online_share: Share = 0.15
    """or by nobody: mini program and live room."""
    payer_unknown_share: Share = 0.04
    hidden_share: Share = 0.01
    """The collecting member is outside the app's visible range."""
    pay_share: Share = 0.5
    """Of online purchases come through the merchant's own WeChat Pay account, with notifications."""
    stranger_share: Share = 0.03
    """More purchases, by people whom nobody knows."""
    refunds: Refunds = Refunds()

    def __post_init__(self) -> None:
        if self.colleague_share + self.online_share + self.payer_unknown_share + self.hidden_share > 1:
            raise ValueError("colleague_share, online_share, payer_unknown_share and hidden_share: above 1 together")


class Burst(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Much at once."""

    kind: Literal["scans", "adds", "edits", "purchases", "complaints", "deletions"]
    """``scans``: all in one second of one code; the others spread over ``seconds``."""
    at_s: Whole
    """After the story's beginning, on the clock."""
    count: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 1
    staff: Annotated[int, msgspec.Meta(ge=0, le=99_999)] = 0
    """So many members of the first corp take part, 1 for scans; 0: all, of all corps."""
    state: Annotated[str, msgspec.Meta(max_length=30)] = ""
    """Channel of scans and adds; empty: the scenario's channels."""
    every_s: Whole = 0
    """Once more after so long; 0: never."""
    scaled: bool = True
    """Whether SCALE multiplies the count."""


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How callbacks go wrong; what is absent stays as the settings of the same names say."""

    duplicate_share: Share | None = None
    shuffle_seconds: Rate | None = None
    lost_share: Share | None = None
    """Never sent at all."""
    burst_seconds: Rate | None = None
    timeout_seconds: Positive | None = None
    total: Annotated[int, msgspec.Meta(ge=1, le=10)] | None = None
    retry_seconds: Annotated[tuple[Rate, ...], msgspec.Meta(min_length=1)] | None = None
    retry_refused: bool | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    mute_after: Whole | None = None
    mute_window_seconds: Positive | None = None
    mute_seconds: Positive | None = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the platform meets its callers; what is absent stays as the settings of the same names say."""

    bill_lag_seconds: Rate | None = None
    welcome_seconds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    token_seconds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    cursor_seconds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    latency_milliseconds: Rate | None = None
    calls_per_minute: Annotated[int, msgspec.Meta(ge=1)] | None = None
    calls_per_hour: Annotated[int, msgspec.Meta(ge=1)] | None = None
    concurrent_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ClockRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How business time goes, as the settings CLOCK and CLOCK_START have it."""

    mode: Annotated[str, msgspec.Meta(pattern=r"^(real|stepped|x[0-9]+(\.[0-9]+)?)$")] | None = None
    """``real``, ``x60`` (a minute a second) or ``stepped`` (moved by hand)."""
    start: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")] | None = None
    """ISO 8601; Beijing time where it names no zone."""


class AppRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of one app of every corp."""

    agent_id: str = ""
    """Empty: every app."""
    events: tuple[str, ...] = ()
    """``Event`` values it is sent; empty: all."""
    trusted_ips: tuple[str, ...] = ()


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file."""

    about: str = ""
    name: str = ""
    """Taken from the file's name."""
    day: Day | None = None
    population: Population | None = None
    channels: tuple[Channel, ...] = ()
    tags: dict[Annotated[str, msgspec.Meta(max_length=30)], tuple[str, ...]] = {}
    """Corp tags that the console made long ago, by group: staff put them on in the client."""
    story: Story = Story()
    shopping: Shopping = Shopping()
    effects: Effects = Effects()
    bursts: tuple[Burst, ...] = ()
    delivery: Delivery = Delivery()
    limits: Limits = Limits()
    clock: ClockRules = ClockRules()
    apps: tuple[AppRules, ...] = ()
    platform: dict[str, dict[str, Any]] = {}
    """The platform's rules where they differ from the documented ones, by section."""

    def __post_init__(self) -> None:
        if (self.day is None) == (self.population is None):
            raise ValueError("a scenario has either a day or a population")
        if self.shopping.buyers_share and self.population is not None and not self.shopping.items:
            raise ValueError("shopping.items: buyers_share is above 0 and there is nothing to buy")

    def settings(self, settings: SimulatorSettings) -> SimulatorSettings:
        """The settings with what the file says, where nobody set them explicitly."""
        told = {"clock": self.clock.mode, "clock_start": self.clock.start, **msgspec.structs.asdict(self.limits)}
        for name, value in msgspec.structs.asdict(self.delivery).items():
            told[f"delivery_{name}" if name in ("timeout_seconds", "total", "concurrency") else name] = value
        free = type(settings).model_fields.keys() - settings.model_fields_set
        return settings.model_copy(
            update={name: value for name, value in told.items() if value is not None and name in free}
        )

    def with_rules(self, apps: Sequence[App]) -> tuple[App, ...]:
        """The apps as the file would have them."""
        made = list(apps)
        for rules in self.apps:
            for number, app in enumerate(made):
                if rules.agent_id in ("", app.agent_id):
                    made[number] = replace(
                        app,
                        events=frozenset(rules.events) or app.events,
                        trusted_ips=frozenset(rules.trusted_ips) or app.trusted_ips,
                    )
        return tuple(made)


_SHIPPED = files("simulator") / "scenarios"


def shipped() -> dict[str, str]:
    """The scenarios that come with the simulator, and what they are about."""
    names = sorted(entry.name.removesuffix(".yaml") for entry in _SHIPPED.iterdir() if entry.name.endswith(".yaml"))
    return {name: load_scenario(name).about.strip() for name in names}


def load_scenario(name: str) -> Scenario:
    """A shipped scenario by name, or a file by path. Raises ScenarioError."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        try:
            text, shown, of = path.read_text(encoding="utf-8"), name, path.stem
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"scenario {name}: cannot be read ({error})") from None
    else:
        entry = _SHIPPED / f"{name}.yaml"
        if not entry.is_file():
            known = ", ".join(sorted(e.name[:-5] for e in _SHIPPED.iterdir() if e.name.endswith(".yaml")))
            raise ScenarioError(f"scenario {name}: not shipped (there are {known}); for a file give its path")
        text, shown, of = entry.read_text(encoding="utf-8"), f"{name}.yaml", name
    return parse_scenario(text, shown, of)


def parse_scenario(text: str, shown: str, name: str = "") -> Scenario:
    """The scenario of a YAML text; ``shown`` is the file's name in messages. Raises ScenarioError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ScenarioError(f"{shown}:1: the file is empty")
        _check_keys(root, shown)
        raw = yaml.safe_load(text)
    except ScenarioError:
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ScenarioError(f"{shown}:{line}: not YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ScenarioError(f"{shown}:{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioError(f"{shown}:1: not YAML: {error}") from None
    try:
        scenario = msgspec.convert(raw, type=Scenario)
        _check_rules(scenario)
    except (msgspec.ValidationError, RecursionError) as error:
        line, field, problem = _place(root, str(error))
        raise ScenarioError(f"{shown}:{line}: {field + ': ' if field else ''}{problem}") from None
    return msgspec.structs.replace(scenario, name=name or scenario.name or shown)


def _check_rules(scenario: Scenario) -> None:
    """Reads the platform's rules as their owners will. Raises msgspec.ValidationError with the whole path."""
    for name, rules in scenario.platform.items():
        if name not in SECTIONS:
            known = ", ".join(SECTIONS)
            raise msgspec.ValidationError(f"no such section (there are {known}) - at `$.platform.{name}`")
        try:
            msgspec.convert(rules, type=rules_of_section(name))
        except msgspec.ValidationError as error:
            found = _AT.match(str(error))
            problem, path = (found[1], found[2]) if found else (str(error), "")
            raise msgspec.ValidationError(f"{problem} - at `$.platform.{name}{path}`") from None


def _check_keys(root: yaml.Node, shown: str) -> None:
    """YAML takes the last of two equal keys without a word."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in keys:
                    raise ScenarioError(f"{shown}:{line}: {key.value}: stands in line {keys[key.value]} already")
                if isinstance(key.value, str):
                    keys[key.value] = line
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)


_AT = re.compile(r"(?s)^(.*) - at (?:`key` in )?`\$(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")
_NAMED = re.compile(r"(?:unknown field `|^)([A-Za-z_]\w*)(?:`|:)")


def _place(root: yaml.Node, message: str) -> tuple[int, str, str]:
    """Line (from 1), field and problem of one of msgspec's messages."""
    found = _AT.match(message)
    problem, path = (found[1], found[2]) if found else (message, "")
    node, line, field = root, root.start_mark.line, ""
    for step in _STEP.finditer(path):
        key, index = step[1], step[2]
        inner: yaml.Node | None = None
        if key is not None and isinstance(node, yaml.MappingNode):
            field += f".{key}" if field else key
            for name, value in node.value:
                if name.value == key:
                    inner, line = value, name.start_mark.line
        elif index is not None and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
            field += f"[{index}]"
            inner = node.value[int(index)]
            line = inner.start_mark.line
        if inner is None:
            break
        node = inner
    # The field a message names itself: an unknown one, or one of several that do not fit together.
    if (named := _NAMED.search(problem)) and isinstance(node, yaml.MappingNode):
        for name, _ in node.value:
            if name.value == named[1]:
                line = name.start_mark.line
    return line + 1, field, problem
