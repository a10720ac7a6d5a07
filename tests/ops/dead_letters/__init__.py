"""Tests of pipeline.ops.dead_letters."""
