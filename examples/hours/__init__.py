"""Orders per hour: windows, with an alert while the hour is open, and late orders in a topic of their own."""
