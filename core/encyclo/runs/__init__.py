"""A run: its checked session, its directory, and how to reopen both."""
