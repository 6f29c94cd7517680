"""Transport between workers and parameter server: tickets, frames, shared memory, the worker's connection."""
