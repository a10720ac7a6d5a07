"""Calls to a service outside Kafka that happen once, however often they are made: see docs/how-to/effects.md."""
