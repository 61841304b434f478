"""Verify a run on disk, or convert it to another store."""
