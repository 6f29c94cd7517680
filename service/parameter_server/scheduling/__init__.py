"""Scheduling of tickets: rounds, dispatch, and the ledger that admits results. It never changes the weights."""
