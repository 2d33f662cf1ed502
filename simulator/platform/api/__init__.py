"""The endpoints, a family a file; ``API`` of each is gathered in ``simulator.platform.endpoints``."""
