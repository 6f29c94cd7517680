"""The service's public gRPC API, a servicer each for jobs, data sets and models."""
