"""Tests of the ports that are code, too."""
