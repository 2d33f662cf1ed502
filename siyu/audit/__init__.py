"""The independent, slow, obvious program that recomputes everything from what arrived and compares it with ClickHouse.

It shares no domain code with the services: from this project it imports only the Avro codec and the record types. The
figures come from docs/definitions.md, read on its own, so that one misreading cannot be made twice by one function.
"""

from siyu.audit.cli import command
from siyu.audit.errors import AuditError
from siyu.audit.report import Report, Section
from siyu.audit.run import AuditConfig, run_audit

__all__ = ["AuditConfig", "AuditError", "Report", "Section", "command", "run_audit"]
