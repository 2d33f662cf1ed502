"""The ClickHouse client settings and the migrations."""

from siyu.warehouse.client import DATABASE, WarehouseError, WarehouseUnavailable, connect, error_code
from siyu.warehouse.migrations import MigrationError

__all__ = ["DATABASE", "MigrationError", "WarehouseError", "WarehouseUnavailable", "connect", "error_code"]
