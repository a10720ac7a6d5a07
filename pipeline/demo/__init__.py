"""`pipeline demo`: kills workers, and compares their results with those of a single process without Kafka."""
