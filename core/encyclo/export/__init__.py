"""`encyclo export`: write a run's results into files for other programs."""
