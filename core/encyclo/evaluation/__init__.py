"""`encyclo evaluate` and `encyclo converge`: figures that a finished run is measured by afterwards.

Scorers written for encyclo 0.1 import `read_in_batches` and `true_ranks` from here; both stand in
`encyclo.statistics.accuracy`.
"""

from encyclo.statistics.accuracy import read_in_batches, true_ranks

__all__ = ["read_in_batches", "true_ranks"]
