"""Samplers that encyclo ships: one a file."""
