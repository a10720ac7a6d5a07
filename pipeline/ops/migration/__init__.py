"""Migration: an app moves to inputs with another number of partitions."""
