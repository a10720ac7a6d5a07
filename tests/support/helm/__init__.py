"""Helm, and what it makes of the chart in deploy/helm."""
