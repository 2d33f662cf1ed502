"""The typed events of every topic, their Avro codec, their ids, and the money and time types."""
