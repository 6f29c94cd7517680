"""Control plane: queue, attempts and states of jobs."""
