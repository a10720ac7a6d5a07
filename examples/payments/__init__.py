"""Orders and their payments: a join, with an alert for orders that are not paid in time."""
