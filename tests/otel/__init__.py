"""Tests of the export to OpenTelemetry."""
