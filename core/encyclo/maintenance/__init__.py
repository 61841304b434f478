"""Care for a run on disk: verify it, convert it to another store."""
