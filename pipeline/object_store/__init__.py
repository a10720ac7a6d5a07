"""Checkpoint stores: directories, S3, GCS, Azure. Only this package imports obstore."""
