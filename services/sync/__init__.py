"""Clocks and long reads: asks the executor for pages and emits the same typed events as ingest."""
