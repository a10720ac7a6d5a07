"""Debian's Prometheus, and an app that it scrapes."""
