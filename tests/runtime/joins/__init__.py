"""Joins of two topics."""
