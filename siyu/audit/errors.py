"""Why an audit could not be made. A difference is never an error: it is a result.

AuditError
├── SourceError      the record of what arrived cannot be read whole
├── WarehouseError   ClickHouse does not answer, or not as expected
└── FileError        the ground truth or the data file cannot be used
"""

__all__ = ["AuditError", "FileError", "SourceError", "WarehouseError"]


class AuditError(Exception):
    """The audit could not run; the message is for the operator and holds no personal data."""


class SourceError(AuditError):
    """Kafka cannot be read from the first record to the last."""


class WarehouseError(AuditError):
    """ClickHouse did not answer a query; the message names the table, never a row."""


class FileError(AuditError):
    """A file given on the command line is missing, malformed or does not fit."""
