"""What is decided and recorded. Never does I/O, reads a clock, or knows Kafka or SQL."""
