"""Settings of ingest: `SIYU_<FIELD>`, read once, validated, frozen."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from siyu.ops.settings import ServiceSettings

MIB = 1024 * 1024


class Settings(ServiceSettings):
    """What ingest needs to know beyond what every service does."""

    host: str = Field("127.0.0.1", description="Address that callbacks arrive at")
    port: int = Field(8080, ge=0, le=65535, description="Port that callbacks arrive at; 0: any free one")
    metrics_port: int = Field(9100, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
    corps: Path = Field(Path("corps.yaml"), description="File of the corps served: corp id, callback token, AES key …")
    # The platform documents no window and its retries keep their timestamp for an unknown time (fact sheet 1.4), so
    # the default only stops what is plainly a replay; repeats inside it change nothing, since ids are idempotent.
    max_callback_age_seconds: int = Field(
        3600, ge=0, description="How far a callback's timestamp may lie from the wall clock; 0: any"
    )
    # The platform hangs up after 5 s; 3 s leave room for the network and a busy loop below the promised 4 s.
    answer_within_seconds: float = Field(
        3.0, gt=0, le=4.0, description="From the first byte to Kafka's acknowledgement; later the answer is 503"
    )
    max_in_flight: int = Field(512, ge=1, description="Deliveries in progress; above it the answer is 503 at once")
    max_in_flight_bytes: int = Field(
        64 * MIB, ge=MIB, description="Bodies held in memory, all together; above it the answer is 503 at once"
    )
