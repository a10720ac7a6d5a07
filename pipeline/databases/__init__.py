"""The adapters for the databases of sinks. Only this package imports the database clients."""
