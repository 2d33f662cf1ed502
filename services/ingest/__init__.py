"""HTTP edge: verify, decrypt, append raw and typed event to Kafka, then answer."""
