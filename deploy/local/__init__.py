"""The local stack: the real broker, the real ClickHouse engine behind HTTP, and a process runner."""
