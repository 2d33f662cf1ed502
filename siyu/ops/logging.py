"""JSON logs, one object a line on stdout: ``ts``, ``level``, ``service``, ``event`` and declared fields only.

A field that is not declared here is dropped and replaced by its name in ``undeclared``: a staff id, a customer id, a
welcome code or a secret cannot slip into a log line by an extra keyword.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

FIELDS: dict[str, str] = {
    "event_id": "id of the event the line is about; the same in every service",
    "action_id": "id of the action the line is about",
    "corp_id": "corp",
    "topic": "Kafka topic",
    "partition": "Kafka partition",
    "partitions": "Kafka partitions",
    "shard": "partition number of the executor's topics",
    "offset": "Kafka offset",
    "offsets": "Kafka offsets by topic and partition",
    "processor": "name of the processor",
    "instance": "name of the instance",
    "worker": "number of the worker process, when `siyu run --workers` started several",
    "pid": "process id",
    "event_type": "Event and ChangeType of a callback, or change of an event",
    "known": "whether a callback's type is known",
    "duplicate": "the event had been applied before",
    "lane": "lane of an action",
    "endpoint": "WeCom endpoint, without query string",
    "status": "state or end of something",
    "reason": "machine-readable reason",
    "errcode": "WeCom's errcode",
    "detail": "machine-readable detail",
    "calls": "HTTP calls made",
    "attempt": "number of the attempt",
    "table": "ClickHouse table",
    "rows": "rows",
    "records": "records",
    "keys": "keys",
    "bytes": "bytes",
    "seconds": "duration in seconds",
    "milliseconds": "duration in ms",
    "count": "a number of things",
    "limit": "a limit that applies",
    "retry_in_seconds": "wait before the next attempt",
    "error": "class of an error, never its text when that may quote data",
    "error_detail": "text of an error that is known not to quote data",
    "author": "name of the person, or of the API token, that asked for it",
    "operation": "operation of the API",
    "signal": "signal received",
    "settings": "settings in force, redacted",
    "host": "address",
    "port": "port",
    "path": "path below our own folders or URL space",
    "version": "version",
    "from_ms": "begin of a window, epoch ms",
    "to_ms": "end of a window, epoch ms",
    "pages": "pages read",
    "stack": "places in the code, without values",
    "service": "service",
}

Processor = structlog.typing.Processor
_encoder = msgspec.json.Encoder(enc_hook=str)
_of_this_process: dict[str, Any] = {}


def in_every_line(**fields: Any) -> None:
    """Declared fields that every line of this process carries from now on: what tells it from its siblings."""
    _of_this_process.update(fields)


def _declared_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    unknown = [key for key in event if key not in FIELDS and key not in {"event", "level", "ts", "exc_info"}]
    for key in unknown:
        del event[key]
    if unknown:
        event["undeclared"] = sorted(unknown)
    return event


def _stack_without_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces exc_info by class and code places: an exception's text may quote a record."""
    exc_info = event.pop("exc_info", None)
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
    if error is not None:
        event.setdefault("error", type(error).__name__)
        places = []
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}:{code.co_name}")
            trace = trace.tb_next
        event["stack"] = places[-12:]
    return event


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return _encoder.encode(event).decode()


class _StdlibToJson(logging.Handler):
    """Libraries' log records as JSON lines: their name and level, and their text only from warning on."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = {
            "event": "library",
            "level": record.levelname.lower(),
            "service": self._service,
            **_of_this_process,
            "library": record.name,
            # The format string, not the formatted text: arguments may be values of records.
            "message": record.msg if isinstance(record.msg, str) else type(record.msg).__name__,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
        sys.stdout.write(_encoder.encode(line).decode() + "\n")
        sys.stdout.flush()


def configure_logging(service: str, level: str = "info") -> None:
    """Sets up JSON logging for the process. Library loggers are let through from warning on."""

    def add_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        event.update(_of_this_process)
        return event

    structlog.configure(
        processors=[
            add_service,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _stack_without_values,
            _declared_only,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line and its end in one write: workers of one machine share an output.
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_StdlibToJson(service)]
    root.setLevel(logging.WARNING)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """A logger; fields go as keywords and must be declared in FIELDS."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
