"""The whole system as plain processes on one machine: real Kafka, the real ClickHouse engine, a process runner."""
