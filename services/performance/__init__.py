"""Live totals per staff member and day, as absolute snapshots."""
