"""The steps of a run, in order: run, refine, collect, judge, finish."""
