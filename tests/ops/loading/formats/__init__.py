"""Tests of pipeline.ops.loading.formats."""
