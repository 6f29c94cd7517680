"""The parameter server of one job: the only writer of its weights."""
