"""How patient the executor is, as dated data: ``schemas/rules/executor.yaml``, validated whole when it is loaded."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import msgspec

from siyu.events import Lane
from siyu.ops.dated import ByDate, by_date, load_yaml
from siyu.wecom.endpoints import ENDPOINTS

_LANES: tuple[Lane, ...] = ("welcome", "urgent", "bulk", "sync")


class TimingsError(ValueError):
    """A file of timings that cannot be used; the message names the place."""


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class LaneTimes(_Data, frozen=True, kw_only=True):
    """``call_timeout_ms`` is wall time; ``hold_ms`` 0: as long as it takes."""

    call_timeout_ms: int
    hold_ms: int


class SettleTimes(_Data, frozen=True, kw_only=True):
    """How what became of a call is found out (business ms)."""

    visible_after_ms: int
    """After the last moment at which it may have been carried out: from then on "not listed" means "not made"."""
    every_ms: int
    slack_ms: int
    horizon_ms: int
    """After the call left: then nobody can tell."""


class _SettleChange(_Data, frozen=True, kw_only=True):
    visible_after_ms: int | None = None
    every_ms: int | None = None
    slack_ms: int | None = None
    horizon_ms: int | None = None


class _Settle(_Data, frozen=True, kw_only=True):
    default: SettleTimes
    endpoints: dict[str, _SettleChange]


class HarvestTimes(_Data, frozen=True, kw_only=True):
    """How results of a send come in (business ms)."""

    first_ms: int
    every_ms: list[int]
    """From round to round; the last repeats."""
    horizon_ms: int
    longest_ms: int
    """An action may ask for no more."""
    grace_ms: int
    """After the horizon: then what WeCom will not tell stays unknown."""
    retry_ms: int
    reads_of_a_staff_member: int
    page: int


class ReminderTimes(_Data, frozen=True, kw_only=True):
    """How often staff are reminded of one message (business ms)."""

    most: int
    within_ms: int
    fresh_ms: int
    most_options: int


class SendRules(_Data, frozen=True, kw_only=True):
    """Amounts of one send."""

    chunks_at_once: int
    ids_a_call: int
    text_bytes: int
    attachments: int
    most_people: int
    longest_id_bytes: int
    ids_a_record: int
    people_a_step: int


class Timings(_Data, frozen=True, kw_only=True):
    """One version."""

    version: str
    effective_from: datetime.date
    source: str
    confidence: str
    lanes: dict[Lane, LaneTimes]
    payload_bytes: int
    departs_within_ms: int
    settle_by: _Settle = msgspec.field(name="settle")
    harvest: HarvestTimes
    reminders: ReminderTimes
    sends: SendRules

    def settle(self, endpoint: str) -> SettleTimes:
        """How a call of this endpoint is settled."""
        change = self.settle_by.endpoints.get(endpoint)
        if change is None:
            return self.settle_by.default
        given = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
        return msgspec.structs.replace(self.settle_by.default, **given)


class _File(_Data, frozen=True, kw_only=True):
    versions: list[Timings]


TimingsByDate = ByDate[Timings]
"""All versions, by business time."""


def load_timings(path: Path) -> TimingsByDate:
    """Reads and validates the file. Raises TimingsError."""
    file = load_yaml(path, "timings", _File, TimingsError)
    for version in file.versions:
        _check(f"timings {path}, version {version.version}", version)
    return by_date(f"timings {path}", [(v.effective_from, v) for v in file.versions], TimingsError)


def _check(where: str, version: Timings) -> None:
    for lane in _LANES:
        if lane not in version.lanes:
            raise TimingsError(f"{where}: lanes: {lane} is missing")
    for endpoint in version.settle_by.endpoints:
        if endpoint not in ENDPOINTS:
            raise TimingsError(f"{where}: settle.endpoints: {endpoint!r} is no documented endpoint")
    if not version.harvest.every_ms:
        raise TimingsError(f"{where}: harvest.every_ms is empty")
    may_be_zero = {"hold_ms"}
    _positive(where, msgspec.to_builtins(version), may_be_zero)
    for endpoint in version.settle_by.endpoints:
        times = version.settle(endpoint)
        if times.horizon_ms <= times.visible_after_ms:
            raise TimingsError(f"{where}: settle of {endpoint}: horizon_ms must be later than visible_after_ms")


def _positive(where: str, value: Mapping[str, object] | list[object], may_be_zero: set[str]) -> None:
    for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(item, Mapping | list):
            _positive(f"{where}: {name}", item, may_be_zero)
        elif isinstance(item, int) and (item < 0 or (item == 0 and name not in may_be_zero)):
            raise TimingsError(f"{where}: {name} must be above 0")
