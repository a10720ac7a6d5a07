"""Runbooks rehearsed as a reader would: their commands on a real Kafka, from the symptom to the repair."""
