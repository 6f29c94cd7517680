"""Grafana's boards as code: ``python -m deploy.grafana`` writes ``dashboards/*.json`` from ``boards/``."""
