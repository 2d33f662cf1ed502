"""Settings base of every service: read once from the environment, validated, frozen, printable without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REDACTED = "********"


class ServiceSettings(BaseSettings):
    """What every service needs to know. Each service adds its own in ``services/<name>/settings.py``.

    Every field is the environment variable ``SIYU_<FIELD>``; a value that does not validate stops the service at start.
    """

    model_config = SettingsConfigDict(env_prefix="SIYU_", frozen=True, extra="ignore")

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port[,host:port…]")
    state_dir: Path = Field(Path("var/state"), description="Folder of the local state stores")
    instance: str = Field(
        "0",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Stable name of this instance (StatefulSet ordinal): its group.instance.id and transactional.id",
    )
    clock_file: Path | None = Field(None, description="Clock file for demonstrations and soaks; unset: system clock")
    metrics_host: str = Field("127.0.0.1", description="Address that /livez, /readyz and /metrics listen on")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")
    log_events: bool = Field(
        True, description="One log line per event with its event id; switch off above some 2,000 events/s"
    )

    def redacted(self) -> dict[str, Any]:
        """Every value as it is in force, secrets replaced: what a service logs at start and `siyu settings` prints."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return {key: REDACTED if _is_secret(key) and value else value for key, value in dumped.items()}


class ProcessorSettings(ServiceSettings):
    """What a stateful processor can be told besides: memory for states, and how soon a worker counts as gone."""

    cache_mb: int = Field(
        96, ge=1, description="Memory for decoded states, over all partitions of one worker; what does not fit is read"
    )
    session_timeout_ms: int = Field(
        30_000, ge=1_000, description="A worker back within this keeps its partitions; longer, others take them over"
    )
    transaction_timeout_ms: int = Field(
        15_000, ge=1_000, description="How long a frozen worker's open transaction may make its successor wait"
    )


def _is_secret(name: str) -> bool:
    return any(part in name for part in ("secret", "password", "token", "aes_key"))
