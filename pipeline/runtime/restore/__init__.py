"""From a journal to a running task: genesis, the choice of a source, replay, and the upgrade of tables."""
