"""Checkpoints: the file with the state of a training, the folder of a job's files, and the fetcher."""
