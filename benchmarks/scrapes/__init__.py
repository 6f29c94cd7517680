"""Cost of being scraped by Prometheus."""
