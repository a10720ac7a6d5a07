"""Orders and payments: an app of three groups, each of which reads what the one before it writes."""
