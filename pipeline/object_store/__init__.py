"""Checkpoint stores: directories, S3, GCS, Azure. The only importer of obstore."""
