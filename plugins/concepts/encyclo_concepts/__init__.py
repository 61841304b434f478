"""Concept lists that encyclo ships."""
