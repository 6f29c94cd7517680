"""Benchmarks of the service and of its peers; README.md explains them."""
