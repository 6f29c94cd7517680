"""What it costs to be watched by Prometheus."""
