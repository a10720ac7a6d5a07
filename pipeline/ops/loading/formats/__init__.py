"""Readers for CSV, JSON lines and Parquet, compressed or not. They return rows with their positions in the file."""
