"""Lists dead letters, replays them exactly once, discards and purges them."""
