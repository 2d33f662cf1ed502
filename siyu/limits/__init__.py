"""What WeCom allows and what we allow ourselves: dated data that answers for every moment, past ones included."""

from siyu.limits.loading import load_registry, parse_registry
from siyu.limits.model import (
    SHARED_SCOPES,
    Calendar,
    Concurrent,
    Limit,
    LimitRegistry,
    LimitsError,
    LimitSet,
    Margins,
    PerRequest,
    Scope,
    Sliding,
    Window,
)
from siyu.limits.source import LimitSource

__all__ = [
    "SHARED_SCOPES",
    "Calendar",
    "Concurrent",
    "Limit",
    "LimitRegistry",
    "LimitSet",
    "LimitSource",
    "LimitsError",
    "Margins",
    "PerRequest",
    "Scope",
    "Sliding",
    "Window",
    "load_registry",
    "parse_registry",
]
