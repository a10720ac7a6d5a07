"""Tests of pipeline.ops.history."""
