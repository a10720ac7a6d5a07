"""Tests of pipeline.ops and of its commands."""
