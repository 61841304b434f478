"""Plugins: found by entry point, checked, called by name."""
