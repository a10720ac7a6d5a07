"""Tests of pipeline/producing."""
