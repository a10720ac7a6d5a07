"""The Grafana dashboard, deploy/grafana/dashboard.json: `python -m tools.dashboard` writes it."""
