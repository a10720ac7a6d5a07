"""Helpers for tests of Faust applications."""
