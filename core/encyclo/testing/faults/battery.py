"""Open damaged run directories one by one, in processes that are limited in time and memory.

Opening any file must give what was written, or one error of encyclo: never a crash, a hang, a traceback or
another value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from encyclo.errors import EncycloError
from encyclo.testing.contract import require
from encyclo.testing.faults.mutations import Mutation, copy_run, plan_mutations
from encyclo.testing.faults.processes import ForkServer

MEMORY = 2**30
SECONDS = 10.0
BATCH = 250

Opens = Callable[[Path, str], object]
"""Reads the content of one file of a run directory, returns a value to compare; picklable by name."""


def find_faults(
    server: ForkServer, opens: Opens, good: Path, work: Path, mutations: list[Mutation]
) -> list[str]:
    """Open `good` with each of the mutations in turn; return a line for each that is not cleanly refused."""
    faults, todo = [], list(mutations)
    while todo:
        log = work / "log"
        log.unlink(missing_ok=True)
        batch = todo[:BATCH]
        ending = server.run(
            open_batch, opens, good, work / "damaged", batch, log, limit=SECONDS + len(batch), memory=MEMORY
        )
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        faults += [line for line in lines if line != "refused" and line != "same"]
        if ending.status != 0:
            what = "hung" if ending.hung else f"ended the process with {ending.status}"
            require(len(lines) < len(batch), f"The battery itself failed: {ending.output[-2000:]}")
            faults.append(f"{what}: {batch[len(lines)]}")
            lines.append("")
        todo = todo[len(lines) :]
    return faults


def open_batch(opens: Opens, good: Path, damaged: Path, batch: list[Mutation], log: Path) -> None:
    """Open each mutation and write a line about it; a line is missing if the process ended."""
    import signal

    copy_run(good, damaged)
    whole = {file: opens(damaged, file) for file in {mutation.file for mutation in batch}}
    with log.open("a", encoding="utf-8") as lines:
        for mutation in batch:
            before = (good / mutation.file).read_bytes()
            mutation.apply(damaged)
            signal.alarm(int(SECONDS))  # no handler: it ends this process, and the line is missing
            print(_judge(opens, damaged, whole[mutation.file], mutation), file=lines, flush=True)
            signal.alarm(0)
            (damaged / mutation.file).write_bytes(before)


def _judge(opens: Opens, folder: Path, whole: object, mutation: Mutation) -> str:
    try:
        found = opens(folder, mutation.file)
    except EncycloError as error:
        text = str(error)
        return "refused" if text and "\n" not in text else f"not a single sentence {text!r}: {mutation}"
    except BaseException as error:
        return " ".join(f"{type(error).__name__} {error}: {mutation}".split())
    return "same" if found == whole else f"silent change: {mutation}"


def check_mutations(
    opens: Opens,
    good: Path,
    work: Path,
    count: int,
    files: list[str] | None = None,
    other: Path | None = None,
) -> None:
    """Damage the files of `good` in `count` ways; raise ContractError unless each is refused or harmless.

    With `other`, another run, its files replace some of them.
    """
    mutations = plan_mutations(good, count, 0, files, other)
    with ForkServer() as server:
        faults = find_faults(server, opens, good, work, mutations)
    kinds = Counter(fault.split(" ")[0] for fault in faults)
    require(
        not faults,
        f"{len(faults)} of {count} damaged files ({dict(kinds)}) were not refused, such as: "
        + "; ".join(faults[:5]),
    )
