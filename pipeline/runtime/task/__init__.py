"""One task at work: records to handlers, their errors, duplicates, dead letters and replays."""
