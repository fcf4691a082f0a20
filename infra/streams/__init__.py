"""Where records come in and events go out: bytes to commands, and the ledger's outputs to the world."""
