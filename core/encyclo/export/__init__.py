"""`encyclo export`: what a run found, in files that other programs read."""
