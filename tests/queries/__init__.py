"""Tests of `pipeline/queries/`."""
