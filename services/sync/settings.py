"""Settings of sync."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from siyu.ops.settings import ServiceSettings


class Settings(ServiceSettings):
    """Bills, through the executor."""

    metrics_port: int = Field(9106, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    corps: Path = Field(Path("corps.yaml"), description="Corps file")
    sync_poll_interval_seconds: float = Field(1.0, gt=0, le=3600, description="Wall time between two looks at the list")
    sync_bills_since: str = Field(
        "",
        description="Business time of the first bill wanted, epoch ms or ISO 8601; empty: a day before the first start",
    )
    sync_overlap_seconds: int = Field(
        600, ge=1, description="Business time that is read again, for bills that are listed late"
    )
    sync_window_days: int = Field(
        28, ge=1, le=28, description="Longest window asked for; the platform allows a month, and February is one"
    )
    sync_page_limit: int = Field(1000, ge=1, le=1000, description="Bills a page")
    sync_deadline_seconds: int = Field(
        0,
        ge=0,
        description="Business time after which a page need not be asked for any more; 0: none, right for a fast clock",
    )
    sync_ask_again_seconds: float = Field(15.0, gt=0, description="Wall time without an answer before asking again")
    sync_asks: int = Field(4, ge=1, description="Times that a page is asked for before its window begins anew")
    sync_first_backoff_seconds: float = Field(1.0, gt=0, description="Wall time after a failure; doubles each time")
    sync_longest_backoff_seconds: float = Field(60.0, gt=0, description="Longest of these")
    sync_replication: int = Field(1, ge=1, description="Replicas of the topics that faust creates; 3 in production")

    @field_validator("sync_bills_since")
    @classmethod
    def _since(cls, value: str) -> str:
        parse_time(value)
        return value

    @model_validator(mode="after")
    def _overlap_fits(self) -> Settings:
        if self.sync_overlap_seconds * 2 > self.sync_window_days * 86_400:
            raise ValueError("SIYU_SYNC_OVERLAP_SECONDS may be half a window at most, or reading would not get ahead")
        return self


def parse_time(value: str) -> int | None:
    """Epoch ms of a setting: digits, ISO 8601 with an offset, or empty for None. Raises ValueError."""
    if not value:
        return None
    if value.isdigit():
        return int(value)
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, for instance 2026-10-01T00:00:00+08:00")
    return int(moment.timestamp() * 1000)
