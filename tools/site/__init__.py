"""Builds the documentation site: `make docs`, decision 0024."""
