"""Reads of tables from other programs: `Reader`."""
