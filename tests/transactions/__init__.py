"""Tests of the engine for fenced transactions."""
