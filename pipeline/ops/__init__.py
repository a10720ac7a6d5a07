"""What the operator's commands do, over ports: loads, topics, dead letters, migration."""
