"""What the guard can be told from outside: ``SIYU_<FIELD>``."""

from __future__ import annotations

from pydantic import Field

from siyu.ops.settings import ProcessorSettings


class Settings(ProcessorSettings):
    """The common settings, with the guard's port."""

    metrics_port: int = Field(9110, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0: any free one")
