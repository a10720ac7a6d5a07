"""Faust applications as users write them. None of them knows that there is another engine.

Kafka's address comes from BROKER_URL, which Faust reads.
"""
