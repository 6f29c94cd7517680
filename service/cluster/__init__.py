"""Cluster: the process that speaks to Ray, which may die with Ray while the service goes on, and its client."""
