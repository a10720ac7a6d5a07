"""Tests of pipeline.client and of its commands."""
