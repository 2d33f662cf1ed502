"""Settings of the executor."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from siyu.ops.settings import ServiceSettings


class Settings(ServiceSettings):
    """Environment ``SIYU_…``."""

    wecom_base_url: str = Field(
        "http://127.0.0.1:8070/cgi-bin", description="WeCom's API, up to and including /cgi-bin"
    )
    corps: Path = Field(Path("corps.yaml"), description="File of corp ids and secrets")
    metrics_port: int = Field(9105, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    stop_grace_seconds: float = Field(
        10.0, ge=0, le=300, description="On stop: how long calls under way may take to end and be committed"
    )
    session_timeout_ms: int = Field(
        30_000,
        ge=6_000,
        description="How long Kafka waits for a silent executor before another one takes its partitions",
    )
