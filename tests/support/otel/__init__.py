"""Helpers for tests of the export to OpenTelemetry."""
