"""Groups of sinks in the worker: tasks whose authority are rows in a database."""
