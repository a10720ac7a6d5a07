"""Tests of pipeline.client.loading and of `pipeline produce`."""
