"""Settings of the simulator: ``SIYU_SIM_<FIELD>``, and what it shares with the services (port, corps, clock file)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from siyu.ops.settings import ServiceSettings


def _sim(name: str, default: Any, description: str, *shared: str, **rules: Any) -> Any:
    return Field(
        default,
        validation_alias=AliasChoices(f"SIYU_SIM_{name}", *shared),
        description=f"{description} (SIYU_SIM_{name}{''.join(f' or {s}' for s in shared)})",
        **rules,
    )


class SimulatorSettings(ServiceSettings):
    """How big the world is, what is played in it, and how faithfully it misbehaves."""

    model_config = SettingsConfigDict(env_prefix="SIYU_", frozen=True, extra="ignore", populate_by_name=True)

    metrics_port: int = Field(9109, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    host: str = _sim("HOST", "127.0.0.1", "Address of the platform and of /_sim")
    port: int = _sim("PORT", 8070, "Port of the platform and of /_sim; 0: any free one", "SIYU_PORT", ge=0, le=65535)
    corps: Path = _sim("CORPS", Path("corps.yaml"), "File of the corps that exist", "SIYU_CORPS")
    callback_base: str = _sim("CALLBACK_BASE", "http://127.0.0.1:8080", "Where callbacks go: <base>/callback/wecom/…")

    merchants: Path | None = _sim("MERCHANTS", None, "WeChat Pay merchants: a file, made when missing; unset: none")
    pay_notify: str = _sim("PAY_NOTIFY", "", "Where payment notices go: <base>/pay/wechat/<corp_id>; empty: nowhere")

    scenario: str = _sim("SCENARIO", "demo", "What is played: a shipped scenario's name, or the path of a YAML file")
    scale: float = _sim("SCALE", 1.0, "Share of the scenario's people that there are", gt=0, le=100)
    seed: int = _sim("SEED", 1, "Decides everything that is not the start time")
    staff: int = _sim("STAFF", 200, "Staff members of the invented day and of a file's history", ge=1)
    customers: int = _sim("CUSTOMERS", 5_000, "Customers of the invented day", ge=1)
    duration_seconds: int = _sim("DURATION_SECONDS", 100, "Length of the invented day, clock ×1", ge=10)
    data: Path | None = _sim("DATA", None, "Online-retail CSV (.csv or .csv.gz): its history instead of invented sales")
    join_seconds: int = _sim("JOIN_SECONDS", 45, "With data: in how many seconds everybody joins, clock ×1", ge=10)
    replay_seconds: int = _sim("REPLAY_SECONDS", 90, "With data: in how many seconds the file's time is replayed", ge=1)

    duplicate_share: float = _sim("DUPLICATE_SHARE", 0.10, "Share of callbacks that come once more later", ge=0, le=1)
    shuffle_seconds: float = _sim("SHUFFLE_SECONDS", 3.0, "Each delivery waits up to this long, at random", ge=0)
    delivery_timeout_seconds: float = _sim(
        "DELIVERY_TIMEOUT_SECONDS", 5.0, "A callback not answered by then failed", gt=0
    )
    delivery_total: int = _sim("DELIVERY_TOTAL", 3, "Deliveries of one callback before it is dropped", ge=1)
    retry_seconds: tuple[float, ...] = _sim(
        "RETRY_SECONDS", (5.0, 10.0), "Waits between them, JSON list; the last one repeats", min_length=1
    )
    delivery_concurrency: int = _sim("DELIVERY_CONCURRENCY", 32, "Callbacks under way at once", ge=1)
    retry_refused: bool = _sim("RETRY_REFUSED", True, "Deliver again after any status but 200, not only after none")
    lost_share: float = _sim("LOST_SHARE", 0.0, "Share of callbacks that are never sent", ge=0, le=1)
    burst_seconds: float = _sim("BURST_SECONDS", 0.0, "Callbacks of so long come all at once; 0: as they happen", ge=0)
    mute_after: int = _sim("MUTE_AFTER", 0, "After so many failed deliveries an app gets none for a while; 0: no", ge=0)
    mute_window_seconds: float = _sim("MUTE_WINDOW_SECONDS", 60.0, "Within how long these failures count", gt=0)
    mute_seconds: float = _sim("MUTE_SECONDS", 600.0, "For how long such an endpoint gets nothing", gt=0)

    bill_lag_seconds: float = _sim("BILL_LAG_SECONDS", 3.0, "A bill row is readable up to this long after", ge=0)
    welcome_seconds: int = _sim("WELCOME_SECONDS", 20, "Life of a welcome code, business time", ge=1)
    token_seconds: int = _sim("TOKEN_SECONDS", 7_200, "Life of an access token, the platform's clock", ge=1)
    cursor_seconds: int = _sim("CURSOR_SECONDS", 14_400, "Life of a paging cursor, the platform's clock", ge=1)
    latency_milliseconds: float = _sim("LATENCY_MILLISECONDS", 10.0, "A call takes up to this long, seeded", ge=0)
    body_limit_bytes: int = _sim("BODY_LIMIT_BYTES", 1 << 20, "Longer request bodies get 40206", ge=1)
    calls_per_minute: int = _sim("CALLS_PER_MINUTE", 10_000, "Per corp and API, then 45009 for a minute", ge=1)
    calls_per_hour: int = _sim("CALLS_PER_HOUR", 150_000, "Per corp and API, then 45009 for an hour", ge=1)
    concurrent_calls: int = _sim("CONCURRENT_CALLS", 5, "Per corp and API in flight, then 45033", ge=1)
    wrong_secrets_per_hour: int = _sim("WRONG_SECRETS_PER_HOUR", 2_000, "Per source address, then an hour's ban", ge=1)
    calls_kept: int = _sim("CALLS_KEPT", 500_000, "Newest calls that /_sim/calls can list", ge=1)
    calls_file: Path | None = _sim("CALLS_FILE", None, "Every call is appended to this file, one JSON object a line")

    clock: str = _sim("CLOCK", "real", "real, xN (x60: a minute a second) or stepped (moved by POST /_sim/clock)")
    clock_start: str = _sim("CLOCK_START", "", "Where business time begins, ISO 8601 (Beijing time without a zone)")

    truth_file: Path | None = _sim("TRUTH_FILE", None, "Where the truth is written when the scenario is done")
    autostart: bool = _sim("AUTOSTART", False, "Begin the scenario without waiting for POST /_sim/start")
