"""Settings of the sink."""

from __future__ import annotations

from pydantic import Field

from siyu.ops.settings import ServiceSettings


class Settings(ServiceSettings):
    """Kafka → ClickHouse."""

    metrics_port: int = Field(9107, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    clickhouse_url: str = Field("http://127.0.0.1:8123", description="ClickHouse's HTTP interface, without credentials")
    clickhouse_user: str = Field("default", description="ClickHouse user")
    clickhouse_password: str = Field("", description="Its password")
    clickhouse_database: str = Field("siyu", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="ClickHouse database")
    clickhouse_timeout_seconds: int = Field(60, ge=1, le=240, description="Longest wait for one insert")
    sink_batch_rows: int = Field(20_000, ge=1, description="Records after which a batch is written")
    sink_batch_bytes: int = Field(32 << 20, ge=1 << 20, description="Bytes of records after which a batch is written")
    sink_linger_ms: int = Field(250, ge=0, le=500, description="Longest wait for a batch to fill")
    sink_dead_letter_limit: int = Field(
        200,
        ge=1,
        description="Dead letters in one batch beyond which the fault is ours (a schema, a migration): the sink stops",
    )
