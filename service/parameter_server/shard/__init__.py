"""Weights: their reduction and update. Vectors and nothing else."""
