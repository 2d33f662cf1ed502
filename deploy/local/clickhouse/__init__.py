"""The real ClickHouse engine (the chdb wheel) behind ClickHouse's HTTP interface, for laptops, tests and CI."""

from deploy.local.clickhouse.process import LocalClickHouse

__all__ = ["LocalClickHouse"]
