"""What is kept for a while: histories, and tables with a time-to-live."""
