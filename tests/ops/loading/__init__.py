"""Tests of pipeline.ops.loading and of `pipeline produce`."""
