"""Settings of the executor."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from siyu.events import schemas_dir
from siyu.ops.settings import ServiceSettings


class Settings(ServiceSettings):
    """Environment ``SIYU_…``."""

    wecom_base_url: str = Field(
        "http://127.0.0.1:8070/cgi-bin", description="WeCom's API, up to and including /cgi-bin"
    )
    corps: Path = Field(Path("corps.yaml"), description="File of corp ids and secrets")
    metrics_port: int = Field(9105, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    stop_grace_seconds: float = Field(
        10.0, gt=0, description="Time between SIGTERM and the end for calls under way and their commit"
    )
    session_timeout_ms: int = Field(
        6_000,
        ge=1_000,
        description="A process that is silent for so long is taken for dead, and others take its shards over; "
        "below 6,000 the brokers must allow it (group.min.session.timeout.ms)",
    )
    egress: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of the address that calls leave from: processes behind one address give the same name",
    )
    limits: Path = Field(
        schemas_dir() / "limits",
        description="Folder of the limits that hold until `siyu limits apply` was used; unset: those of this version",
    )
    token_keys: Path | None = Field(
        None, description="File of the keys that access tokens are encrypted with in Kafka; unset: from the corps file"
    )
    most_waiting: int = Field(
        1_000_000,
        ge=100,
        description="Actions of one lane that are taken in and not done with, over all shards of the process",
    )
    remember_days: float = Field(
        7.0, gt=0, description="How long an action that ended is remembered, so that its repeat is recognised"
    )
