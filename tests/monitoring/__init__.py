"""Alert rules, the dashboard and the runbooks they name, against the metrics of real workers."""
