"""What a load can read: CSV, JSON lines and Parquet, packed or not, as rows with their place in the file."""
