"""The ban guard: from signs of risk to how far each account is trusted."""
