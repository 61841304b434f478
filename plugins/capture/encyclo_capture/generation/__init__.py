"""Continues texts that share a prefix."""
