"""What the service needs around it: a broker for development and tests, and files for deployment."""
