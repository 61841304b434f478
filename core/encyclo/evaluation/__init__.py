"""`encyclo evaluate` and `encyclo converge`: measure a finished run.

Scorers written for encyclo 0.1 import `read_in_batches` and `true_ranks` from here; both are now in
`encyclo.statistics.accuracy`.
"""

from encyclo.statistics.accuracy import read_in_batches, true_ranks

__all__ = ["read_in_batches", "true_ranks"]
