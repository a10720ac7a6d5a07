"""Tests of pipeline.client.migrating."""
