"""What every service needs to be operated: settings base, logging, metrics, health, clock and signals."""
