"""Exactly-once stream processing in Python on Kafka."""
