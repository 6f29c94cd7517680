"""Scheduling of tickets: rounds, dispatch, and which results may count. No vectors are changed here."""
