"""A Prometheus that watches nablad."""
