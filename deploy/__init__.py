"""Ways to run Siyu: on one machine (local, docker) and in production (helm)."""
