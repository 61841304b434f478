"""Executors that encyclo ships: what does the units of a run."""
