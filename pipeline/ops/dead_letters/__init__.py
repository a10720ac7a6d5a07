"""Dead letters: which there are, which were replayed, and replays of them, each exactly once."""
