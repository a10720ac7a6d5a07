"""Tests of pipeline.client.deadletters."""
