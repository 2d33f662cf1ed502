"""A stand-in for WeCom: its endpoints, its callbacks and their faults, a seeded world, and the ground truth."""
