"""The HTTP API of Siyu: what the executor did and does, and the operators' words about it."""
