"""The store contract's crashes: power cuts, refused writes, kill -9, damaged files. See `stores`."""

from __future__ import annotations

import errno
import statistics
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from encyclo import files
from encyclo.errors import EncycloError
from encyclo.ledger import Ledger, read_committed
from encyclo.testing import disks
from encyclo.testing.battery import check_mutations
from encyclo.testing.contract import ContractError, require
from encyclo.testing.processes import Nursery
from encyclo.testing.small_run import SmallRun, read_finished

if TYPE_CHECKING:
    from encyclo.testing.stores import StoreContract


def check_power_cuts(contract: StoreContract, folder: Path, survivals: int) -> None:
    """Cut the power after every call of a small run, in each of `survivals` ways; check and go on."""
    run, moments = SmallRun(), record(contract, SmallRun(), _made(folder / "whole"))
    for number, moment in enumerate(moments):
        for names, data in disks.SURVIVALS[:survivals]:
            place = _made(folder / f"cut-{number}-{names}-{data}")
            disks.restore(moment, place, names, data, seed=number)
            try:
                run.check_kept(contract.make(place), place, moment.promised)
                run.go(contract.make(place), place)
                run.check_finished(contract.make(place), place)
            except Exception as error:
                raise ContractError(
                    f"A power cut after call {number} of {len(moments)} ({moment.call}; names {names}, data "
                    f"{data}, {moment.promised} units promised): {type(error).__name__}: {error}"
                ) from error


def record(contract: StoreContract, run: SmallRun, folder: Path) -> list[disks.Moment]:
    """Run once and return a moment for each call that changed the disk, and for each promise."""
    disk = disks.RecordingDisk(folder)

    def promise(units: int) -> None:
        disk.promised = units
        disk.done("promise", folder)

    try:
        with files.using(disk):
            run.go(contract.make(folder), folder, promise)
        run.check_finished(contract.make(folder), folder)
    finally:
        disk.close()
    return disk.moments


def check_refused_writes(contract: StoreContract, folder: Path) -> None:
    """Let every call of a small run fail in turn, with a full disk and with an I/O error; go on after it."""
    run = SmallRun()
    for code in (errno.ENOSPC, errno.EIO):
        number, calls = 1, 1
        while number <= calls:
            place = _made(folder / f"{errno.errorcode[code]}-{number}")
            disk = disks.FailingDisk(number, code)
            promised: list[int] = [0]
            try:
                with files.using(disk):
                    run.go(contract.make(place), place, promised.append)
            except EncycloError as error:
                require("\n" not in str(error), f"{disk.calls[number - 1]} failed in more than one line: {error}")
            except Exception as error:
                raise ContractError(
                    f"{disk.calls[number - 1]} failed with {type(error).__name__}, no StoreError: {error}"
                ) from error
            try:
                run.check_kept(contract.make(place), place, promised[-1])
                run.go(contract.make(place), place)
                run.check_finished(contract.make(place), place)
            except Exception as error:
                raise ContractError(
                    f"After {errno.errorcode[code]} at call {number} ({disk.calls[number - 1]}): "
                    f"{type(error).__name__}: {error}"
                ) from error
            number, calls = number + 1, max(calls, len(disk.calls))
        require(calls > 4, f"Only {calls} calls went through encyclo.files: the store writes past it.")


def check_full_disk_in_the_library(contract: StoreContract, folder: Path) -> None:
    """Let the system refuse to let any file grow past some sizes (RLIMIT_FSIZE); go on without the limit."""
    run = SmallRun(units=2, rows=60)
    with Nursery() as nursery:
        nursery.warm(_warm, contract, _made(folder / "warm"))
        for size in (0, 100, 1_000, 4_000, 16_000, 40_000):
            place = _made(folder / str(size))
            ending = nursery.run(_limited, contract, run, place, size)
            require(ending.status == 0, f"With files of at most {size} bytes: {ending.output.strip()[-1500:]}")
            run.go(contract.make(place), place)
            run.check_finished(contract.make(place), place)


def _limited(contract: StoreContract, run: SmallRun, folder: Path, size: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = contract.make(folder)
    Ledger(folder).create()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        run.go(store, folder)
    except EncycloError as error:
        problem = "" if str(error) and "\n" not in str(error) else f"no single sentence: {error!r}"
    except Exception as error:
        problem = f"{type(error).__name__}, no StoreError: {error}"
    else:
        problem = "" if size >= 40_000 else "no error although nothing could be written"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    require(not problem, problem)


def check_kill_9(contract: StoreContract, folder: Path, kills: int) -> None:
    """Kill a run `kills` times, each at another instant; check what was promised, go on, compare the end."""
    run, random = SmallRun(units=8), Random(0)
    with Nursery() as nursery:
        nursery.warm(_warm, contract, _made(folder / "warm"))
        times = []
        for number in range(3):
            place = _made(folder / f"whole-{number}")
            ending = nursery.run(_keep_promises, contract, run, place)
            require(ending.status == 0, f"An uninterrupted run failed: {ending.output[-1500:]}")
            times.append(ending.seconds)
        length, killed, tries = statistics.median(times), 0, 0
        while killed < kills:
            tries += 1
            require(tries <= 4 * kills + 20, f"Only {killed} of {tries} runs could be killed before their end.")
            place = _made(folder / f"kill-{tries}")
            ending = nursery.run(_keep_promises, contract, run, place, kill_after=random.uniform(0, length))
            killed += ending.killed
            require(ending.killed or ending.status == 0, f"A run failed: {ending.output[-1500:]}")
            run.check_kept(contract.make(place), place, promises(place))
            ending = nursery.run(_keep_promises, contract, run, place)
            require(ending.status == 0, f"Going on after kill {killed} failed: {ending.output[-1500:]}")
            run.check_finished(contract.make(place), place)


def _warm(contract: StoreContract, folder: Path) -> None:
    contract.make(folder)


def _keep_promises(contract: StoreContract, run: SmallRun, folder: Path) -> None:
    """Run, and tell outside of the run directory what is safe by now; a kill doesn't lose what was told."""
    with folder.with_suffix(".promises").open("ab", buffering=0) as told:
        run.go(contract.make(folder), folder, lambda units: told.write(b"%d\n" % units) and None)


def promises(folder: Path) -> int:
    """Return what a run in `folder` promised last."""
    path = folder.with_suffix(".promises")
    lines = path.read_bytes().split() if path.exists() else []
    return int(lines[-1]) if lines else 0


def check_damaged_files(contract: StoreContract, folder: Path, count: int) -> None:
    """Damage the files of a finished small run in `count` ways and read it."""
    good, work = _made(folder / "good"), _made(folder / "work")
    SmallRun().go(contract.make(good), good)
    check_mutations(partial(read_run, contract), good, work, count)


def read_run(contract: StoreContract, folder: Path) -> object:
    """Read a small run's parts and encyclopedia through the ledger; return what tells them apart."""
    store = contract.make(folder)
    commits = Ledger(folder).commits()
    parts = {unit: read_committed(store, commit).checksum() for unit, commit in commits.items()}
    content = read_finished(store)
    return commits, parts, content.samples.checksum(), repr(content.book)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
