"""Public gRPC API of the service: one servicer each for jobs, data sets and models."""
