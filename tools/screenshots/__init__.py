"""Takes the pictures of the page and of a report that are in `docs/assets`: `make screenshots`."""
