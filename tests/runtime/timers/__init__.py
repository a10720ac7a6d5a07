"""Tests of timers and of `every`."""
