"""Stores: jobs with their events, data sets and models, in one SQLite database."""
