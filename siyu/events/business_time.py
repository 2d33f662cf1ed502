"""Business days: Asia/Shanghai, which has had one offset (UTC+8) since 1992, so a fixed offset is exact and fast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")
_DAY_MS = 86_400_000
_OFFSET_MS = 8 * 3_600_000


def business_day(time_ms: int) -> str:
    """``YYYY-MM-DD`` in Asia/Shanghai of an epoch-ms instant."""
    return datetime.fromtimestamp(time_ms // 1000, SHANGHAI).strftime("%Y-%m-%d")


def business_day_start_ms(time_ms: int) -> int:
    """Epoch ms of the Asia/Shanghai midnight at or before the instant."""
    return (time_ms + _OFFSET_MS) // _DAY_MS * _DAY_MS - _OFFSET_MS


def iso_utc(time_ms: int) -> str:
    """ISO 8601 with milliseconds, UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
