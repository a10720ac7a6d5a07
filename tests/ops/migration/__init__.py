"""Tests of pipeline.ops.migration."""
