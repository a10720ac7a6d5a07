"""Helpers of the tests of transactions."""
