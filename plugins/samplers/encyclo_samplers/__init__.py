"""Samplers that encyclo ships."""
