"""A third party's store: an encyclopedia as one SQLite database."""
