"""What the ledger runs beside in development and tests: servers of their own, started and removed by this project."""
