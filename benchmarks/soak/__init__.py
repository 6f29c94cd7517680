"""Many short jobs in a row on one daemon: whatever a job took, the next ones must find again."""
