"""What is known from the log: books, read models, proofs. Never writes events."""
