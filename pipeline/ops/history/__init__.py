"""The past of an app, read from its journals and checkpoints: past states, changes of a row, single records."""
