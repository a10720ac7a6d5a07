"""Sink groups in a worker: tasks whose source of truth is a table in a database."""
