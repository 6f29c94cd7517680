"""Checkpoints: the file that holds where a training stands, and the folder in which a job's files lie."""
