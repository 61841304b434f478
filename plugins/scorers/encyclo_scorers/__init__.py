"""Scorers that encyclo ships."""
