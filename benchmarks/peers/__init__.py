"""The comparison with other systems: `make bench-peers`, or `python -m benchmarks peers --case NAME`.

Each system does the same job in a process of its own, in an environment of its own, on the same Kafka and the same
input, by turns. What it puts out is verified, record by record. The measures are taken from outside: from the offsets
and the records of the output topic, and from /proc.
"""
