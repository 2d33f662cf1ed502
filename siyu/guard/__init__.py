"""What the ban guard and the executors agree on: the dated rules, and whose account a key names."""
