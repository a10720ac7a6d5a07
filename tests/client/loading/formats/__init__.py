"""Tests of pipeline.client.loading.formats."""
