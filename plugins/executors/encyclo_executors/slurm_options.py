"""The options of the executor `slurm`, and what is refused before a run begins."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from encyclo.errors import MissingDependencyError
from encyclo.executors import Workers
from encyclo.optional_packages import require
from encyclo_executors.shares import workers_here


class Options(BaseModel):
    """Options: `-o slurm.partition=gpu` on the command line."""

    model_config = ConfigDict(extra="forbid")

    cluster: Literal["slurm", "local"] = "slurm"
    """`local` starts the jobs as processes of this machine, to try the executor without a cluster."""
    workers: int = Field(2, ge=1, le=1_000)
    """Jobs, each with a model of its own."""
    partition: str | None = None
    time: int = Field(60, ge=1)
    """Minutes until Slurm ends a job; another one then goes on."""
    cpus: int | None = Field(None, ge=1)
    """Cores of each job; by default 8, and 1 on a GPU."""
    gpus: int = Field(1, ge=1)
    """GPUs of each job, if the run computes on a GPU."""
    memory: float | None = Field(None, gt=0)
    """Gigabytes of each job; by default what the cluster gives."""
    folder: Path | None = None
    """Where the jobs' messages and logs are, on a file system that all machines share; by default in the run."""
    extra: str = ""
    """Further flags of sbatch, such as `--account=physics --exclusive`."""

    def planned(self, device: str) -> Workers:
        """Return what `encyclo plan` says of the jobs."""
        if self.cluster == "local":
            return workers_here(self.workers, device)
        return Workers(self.workers, self.workers, elsewhere=True)

    @field_validator("extra")
    @classmethod
    def _flags(cls, extra: str) -> str:
        if any(not flag.startswith("--") for flag in shlex.split(extra)):
            raise ValueError("give flags of sbatch in the form --name=value or --name, separated by blanks")
        return extra

    @model_validator(mode="after")
    def _installed(self) -> Self:
        """Refuse a run without submitit or Slurm before it begins."""
        require("submitit", "The executor slurm", "slurm")
        missing = [name for name in ("sbatch", "srun") if not shutil.which(name)]
        if self.cluster == "slurm" and missing:
            raise MissingDependencyError(
                f"The executor slurm needs Slurm's command {missing[0]}, which is not on this machine's PATH; start "
                "the run on a login node of the cluster, or give -o slurm.cluster=local to try it without one."
            )
        return self

    def sbatch_flags(self) -> dict[str, str | bool]:
        """Return the flags of sbatch that submitit has no parameter for."""
        flags: dict[str, str | bool] = {"no_requeue": True}  # the run itself submits another job
        for flag in shlex.split(self.extra):
            name, equals, value = flag.removeprefix("--").partition("=")
            flags[name.replace("-", "_")] = value if equals else True
        return flags
