"""Interpreters that encyclo ships: two baselines, one file each, and the transformer."""
