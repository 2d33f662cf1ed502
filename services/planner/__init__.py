"""Rules that turn events into actions with a deadline and a reason."""
