"""Which worker runs which task: members, handoffs, standby copies, cleanup."""
