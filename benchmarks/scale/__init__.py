"""How the time of a step grows with workers and weights: a model from measured parts, checked, and what it predicts.

``python -m benchmarks.scale`` measures, checks and predicts; benchmarks/README.md explains it.
"""
