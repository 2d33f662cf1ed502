"""Settings of the API: `SIYU_<FIELD>`, read once, validated, frozen."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from siyu.ops.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the API needs to know beyond what every service does."""

    api_host: str = Field("127.0.0.1", description="Address the API listens on")
    api_port: int = Field(8090, ge=0, le=65535, description="Port the API listens on; 0: any free one")
    metrics_port: int = Field(9108, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    api_tokens: Path | None = Field(
        None, description="File of names, roles and hashed tokens (siyu api-token); unset: nobody may ask anything"
    )
    api_max_in_flight: int = Field(32, ge=1, le=256, description="Requests in progress; above it the answer is 503")
    api_look_back_hours: int = Field(
        24, ge=0, le=720, description="How far back lanes are searched for an action nothing has been done about yet"
    )
    api_stale_seconds: float = Field(
        30.0, gt=0, description="Age beyond which quotas and pauses are not shown as if they were of now: 503"
    )
    clickhouse_url: str = Field("http://127.0.0.1:8123", description="ClickHouse's HTTP interface, without credentials")
    clickhouse_user: str = Field("default", description="ClickHouse user")
    clickhouse_password: str = Field("", description="Its password")
    clickhouse_database: str = Field("siyu", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="ClickHouse database")
    api_query_seconds: int = Field(20, ge=1, le=120, description="Longest wait for one answer of ClickHouse")
