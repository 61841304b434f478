"""A run, straight down: run, refine, collect, judge, finish."""
