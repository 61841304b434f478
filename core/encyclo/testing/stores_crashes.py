"""The store contract's crashes: power cuts, refused writes, kill -9, damaged files. See `stores`."""

from __future__ import annotations

import errno
import pickle
import statistics
from functools import partial
from pathlib import Path
from random import Random

from encyclo.errors import DamagedError, EncycloError
from encyclo.storage import files
from encyclo.storage.ledger import Ledger
from encyclo.testing.contract import ContractError, require
from encyclo.testing.faults import disks
from encyclo.testing.faults.battery import check_mutations
from encyclo.testing.faults.processes import ForkServer
from encyclo.testing.fixtures.small_run import MakeStore, SmallRun, read_part, read_sealed


def check_power_cuts(make: MakeStore, folder: Path, survivals: int, every: bool) -> None:
    """Cut the power after every call of a small run, in each of `survivals` ways; check and resume."""
    run, moments = SmallRun(), record(make, SmallRun(), _made(folder / "whole"))
    seen: set[tuple[int, bytes]] = set()
    for number in disks.telling([moment.call for moment in moments], every):
        moment = moments[number]
        for names, data in disks.SURVIVALS[:survivals]:
            left = disks.survivors(moment, names, data, seed=number)
            image = (moment.promised, pickle.dumps(sorted(left.items())))
            if image in seen:
                continue
            seen.add(image)
            place = _made(folder / f"cut-{number}-{names}-{data}")
            disks.restore(left, place)
            try:
                _go_on(make, run, place, moment.promised)
            except Exception as error:
                raise ContractError(
                    f"A power cut after call {number} of {len(moments)} ({moment.call}; names {names}, data "
                    f"{data}, {moment.promised} units promised): the run can't go on "
                    f"({type(error).__name__}: {error}); write and sync through encyclo.storage.files."
                ) from error


def _go_on(make: MakeStore, run: SmallRun, folder: Path, promised: int) -> None:
    run.check_kept(make(folder), folder, promised)
    with files.using(disks.HastyDisk()):
        run.go(make(folder), folder)
    run.check_finished(make(folder), folder)


def record(make: MakeStore, run: SmallRun, folder: Path) -> list[disks.Moment]:
    """Run once and return a moment for each call that changed the disk, and for each promise."""
    disk = disks.RecordingDisk(folder)

    def promise(units: int) -> None:
        disk.promised = units
        disk.done("promise", folder)

    try:
        with files.using(disk):
            run.go(make(folder), folder, promise)
        run.check_finished(make(folder), folder)
    finally:
        disk.close()
    return disk.moments


def check_refused_writes(make: MakeStore, folder: Path, every: bool) -> None:
    """Let every call of a small run fail in turn, with a full disk and with an I/O error; then resume."""
    run, counting, whole = SmallRun(), disks.FailingDisk(), _made(folder / "whole")
    with files.using(counting):
        run.go(make(whole), whole)
    require(
        sum(call.startswith("replace") for call in counting.calls) >= run.units + 2,
        "The store doesn't put its files in place through encyclo.storage.files, so nothing can be made to fail.",
    )
    for code in (errno.ENOSPC, errno.EIO):
        for number in (place + 1 for place in disks.telling(counting.calls, every)):
            if code == errno.ENOSPC and counting.calls[number - 1].startswith("remove"):
                continue  # a full disk doesn't refuse that
            place = _made(folder / f"{errno.errorcode[code]}-{number}")
            disk = disks.FailingDisk(number, code)
            promised: list[int] = [0]
            try:
                with files.using(disk):
                    run.go(make(place), place, promised.append)
            except EncycloError as error:
                require(
                    "\n" not in str(error), f"{disk.calls[number - 1]} failed in more than one line: {error}"
                )
            except Exception as error:
                raise ContractError(
                    f"{disk.calls[number - 1]} failed, and the store raised {type(error).__name__} ({error}) where it "
                    "must raise a StoreError."
                ) from error
            try:
                _go_on(make, run, place, promised[-1])
            except Exception as error:
                raise ContractError(
                    f"After {errno.errorcode[code]} at call {number} ({disk.calls[number - 1]}) the run "
                    f"can't go on ({type(error).__name__}: {error}); write and sync through encyclo.storage.files."
                ) from error


def check_full_disk_in_the_library(make: MakeStore, folder: Path) -> None:
    """Limit the size of files at several sizes (RLIMIT_FSIZE); resume without the limit."""
    run = SmallRun(units=2, rows=60)
    with ForkServer() as server:
        server.warm(_warm, make, _made(folder / "warm"))
        for size in (0, 100, 1_000, 4_000, 16_000, 40_000):
            place = _made(folder / str(size))
            ending = server.run(_limited, make, run, place, size)
            require(
                ending.status == 0, f"With files of at most {size} bytes: {ending.output.strip()[-1500:]}"
            )
            run.go(make(place), place)
            run.check_finished(make(place), place)


def _limited(make: MakeStore, run: SmallRun, folder: Path, size: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = make(folder)
    Ledger(folder).create()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        run.go(store, folder)
    except EncycloError as error:
        problem = "" if str(error) and "\n" not in str(error) else f"not a single sentence: {error!r}"
    except Exception as error:
        problem = f"{type(error).__name__}, not a StoreError: {error}"
    else:
        problem = "" if size >= 40_000 else "no error although nothing could be written"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    require(not problem, problem)


def check_kill_9(make: MakeStore, folder: Path, kills: int) -> None:
    """Kill a run `kills` times, each at another instant; check the promises, resume, compare the end."""
    run, random = SmallRun(units=5), Random(0)
    with ForkServer() as server:
        server.warm(_warm, make, _made(folder / "warm"))
        times = []
        for number in range(3):
            place = _made(folder / f"whole-{number}")
            ending = server.run(_keep_promises, make, run, place)
            require(ending.status == 0, f"An uninterrupted run failed: {ending.output[-1500:]}")
            times.append(ending.seconds)
        length, killed, tries = statistics.median(times), 0, 0
        while killed < kills:
            tries += 1
            require(
                tries <= 4 * kills + 20, f"Only {killed} of {tries} runs could be killed before their end."
            )
            place = _made(folder / f"kill-{tries}")
            ending = server.run(_keep_promises, make, run, place, kill_after=random.uniform(0, length))
            killed += ending.killed
            require(ending.killed or ending.status == 0, f"A run failed: {ending.output[-1500:]}")
            run.check_kept(make(place), place, promises(place))
            ending = server.run(_keep_promises, make, run, place)
            require(ending.status == 0, f"Resuming after kill {killed} failed: {ending.output[-1500:]}")
            run.check_finished(make(place), place)


def _warm(make: MakeStore, folder: Path) -> None:
    make(folder)


def _keep_promises(make: MakeStore, run: SmallRun, folder: Path) -> None:
    """Run, and record outside of the run directory how much is durable; a kill doesn't lose this record."""
    with folder.with_suffix(".promises").open("ab", buffering=0) as log:

        def promise(units: int) -> None:
            log.write(b"%d\n" % units)

        run.go(make(folder), folder, promise)


def promises(folder: Path) -> int:
    """Return the last promise of a run in `folder`."""
    path = folder.with_suffix(".promises")
    lines = path.read_bytes().split() if path.exists() else []
    return int(lines[-1]) if lines else 0


def check_damaged_files(make: MakeStore, folder: Path, count: int) -> None:
    """Damage the files of a finished small run in `count` ways and read it."""
    good, work = _made(folder / "good"), _made(folder / "work")
    SmallRun().go(make(good), good)
    check_mutations(partial(read_run, make), good, work, count)


def read_run(make: MakeStore, folder: Path, file: str) -> object:
    """Read the content of `file` in a small run, with the ledger; return a value that identifies it.

    Raises DamagedError if a record is missing: a run then redoes the unit.
    """
    store = make(folder)
    if not file.startswith(("parts/", "commits/")):
        content = read_sealed(store, folder)
        return content.samples.checksum(), repr(content.book)
    ledger = Ledger(folder)
    commits = ledger.commits()
    if len(commits) < SmallRun().units:
        raise DamagedError(f"A commit record of {folder} is missing.")
    concerned = [c for c in commits.values() if file.startswith((f"parts/{c.part}", f"commits/{c.unit}"))]
    return commits, [read_part(store, ledger, commit).checksum() for commit in concerned]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
