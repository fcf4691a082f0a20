"""Where the ledger touches the world: stores, streams, command line. Never decides anything."""
