"""Slurm's commands on one machine: jobs are processes that begin at once, in a partition named `small`.

`install(folder)` writes `sbatch`, `srun`, `sacct` and `scancel`. Beside them lie the scripts that were submitted, and for
each job a file with its process and one with its exit code.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path


def install(folder: Path) -> None:
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        command = shlex.join([sys.executable, __file__, str(folder), name])
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)


def states(folder: Path) -> dict[str, str]:
    """Return the state of each job."""
    return {path.stem: _state(path) for path in folder.glob("*.pid")}


def _state(path: Path) -> str:
    if path.with_suffix(".rc").exists():
        return "COMPLETED" if path.with_suffix(".rc").read_text().strip() == "0" else "FAILED"
    try:
        os.kill(int(path.read_text()), 0)
    except ProcessLookupError:
        return "CANCELLED"
    return "RUNNING"


def sbatch(folder: Path, script: str) -> None:
    text = Path(script).read_text()
    flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))
    if flags["partition"] != "small":
        sys.exit("sbatch: error: invalid partition specified")
    job = str(100 + len(list(folder.glob("*.sh"))))
    (folder / f"{job}.sh").write_text(text)
    array = range(int(flags["array"].split("-")[1].split("%")[0]) + 1) if "array" in flags else [None]
    for place in array:
        name = job if place is None else f"{job}_{place}"
        environment = {**os.environ, "SLURM_JOB_ID": job, "SLURM_PROCID": "0"}
        if place is not None:
            environment |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(place)}
        code = folder / f"{name}.rc"
        process = subprocess.Popen(
            ["bash", "-c", f"bash {folder}/{job}.sh; echo $? > {code}.new; mv {code}.new {code}"],
            env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        (folder / f"{name}.pid").write_text(str(process.pid))
    print(f"Submitted batch job {job}")


def srun(folder: Path, *arguments: str) -> None:
    del folder
    logs, command = list(arguments[:5]), list(arguments[5:])
    assert logs[0] == "--unbuffered" and logs[1] == "--output" and logs[3] == "--error"
    for number, path in ((1, logs[2]), (2, logs[4])):
        for letter, variable in (
            ("A", "SLURM_ARRAY_JOB_ID"), ("a", "SLURM_ARRAY_TASK_ID"), ("j", "SLURM_JOB_ID"), ("t", "SLURM_PROCID"),
        ):  # fmt: skip
            path = path.replace(f"%{letter}", os.environ.get(variable, ""))
        os.dup2(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY), number)
    os.execvp(command[0], command)


def sacct(folder: Path, *_: str) -> None:
    print("JobID|State|NodeList")
    for job, state in states(folder).items():
        print(f"{job}|{state}|here")


def scancel(folder: Path, job: str) -> None:
    if _state(folder / f"{job}.pid") == "RUNNING":
        os.killpg(int((folder / f"{job}.pid").read_text()), signal.SIGTERM)


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
