"""The demo: a whole ledger in one process, on the real fall of 24 September 2019. Never part of a real ledger."""
