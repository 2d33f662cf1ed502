"""Processor runtime: exactly-once steps over keyed state, on Kafka transactions with RocksDB as the cache of the changelog."""
