"""Scheduling of tickets: rounds, dispatch, and the ledger that admits results. No vectors are changed here."""
