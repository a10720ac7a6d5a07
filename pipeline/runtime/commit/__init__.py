"""The commits of one task: transactions, the proof that its reads were current, and the commit rate."""
