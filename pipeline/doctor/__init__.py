"""`pipeline doctor`: checks the settings of an app, its cluster, its machine, and what its workers may do."""
