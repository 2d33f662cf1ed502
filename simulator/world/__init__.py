"""What is true in the simulated world: people, relationships, and what is due; no network, no clock."""
