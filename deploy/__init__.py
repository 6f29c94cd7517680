"""Deployment and monitoring: files for Prometheus and Grafana, and the code that some of them come from."""
