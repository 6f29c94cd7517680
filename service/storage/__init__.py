"""Storage: the data directory with its lock, permissions and reserve, and the formats of its files."""
