"""Rules and formats of the protocol, pure: no I/O, clock, threads or randomness."""
