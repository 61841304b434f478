"""The executor `slurm`: workers are the jobs of an array on a Slurm cluster, submitted with submitit.

A job begins when Slurm has room for it. Then it loads the model once and does one unit after another; the units are
given only to jobs that have begun. A job that dies costs its unit only, and another one is submitted for it.
"""

from __future__ import annotations

from encyclo import hookimpl
from encyclo.executors import Executor, Workplace
from encyclo.types import Context
from encyclo_executors.slurm_jobs import SlurmJobs
from encyclo_executors.slurm_options import Options

__all__ = ["Options", "run_units"]


@hookimpl
def run_units(workplace: Workplace, context: Context) -> Executor:
    """Return an executor whose jobs are submitted with the first units."""
    assert isinstance(context.options, Options)
    return SlurmJobs(workplace, context.options, getattr(context.model, "device", "cpu").startswith("cuda"))
