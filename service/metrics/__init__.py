"""Prometheus metrics: table, instruments, collectors, page and its HTTP server."""
