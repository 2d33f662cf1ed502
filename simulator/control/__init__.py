"""``/_sim/…``: the simulator's own side, for whoever tests: truth, clock, faults, calls, and a page to look at."""
