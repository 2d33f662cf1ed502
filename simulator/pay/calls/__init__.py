"""The calls of the v3 interface, family by family."""
