"""How nablad is run and watched. Files for Prometheus and Grafana, and the code that some of them come from."""
