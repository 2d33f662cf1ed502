"""What several benchmarks share: the broker, preloaded events, worker processes with their CPU time, right answers."""
