"""Interpreters that encyclo ships: one a file."""
