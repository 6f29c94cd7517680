"""Data directory: its layout, lock, permissions, reserve and file formats."""
