"""Comparison with Kafka Streams, in its own test driver."""
