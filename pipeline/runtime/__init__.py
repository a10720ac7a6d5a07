"""The worker and everything it runs, over ports: tasks, commits, restore, assignment."""
