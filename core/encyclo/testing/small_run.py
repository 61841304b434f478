"""A run of a store alone: a few units written, committed and finalised twice, no model anywhere.

It does with a store what `encyclo run` does, through the same ledger, and goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encyclo import crc, sealing
from encyclo.ledger import Commit, Ledger, Unit, read_committed
from encyclo.rows import FinishedRows
from encyclo.schema import Part
from encyclo.testing.contract import require
from encyclo.testing.stores_data import HOSTILE, PLAIN, Content, differences, make_book, make_part
from encyclo.types import Store


@dataclass(frozen=True)
class SmallRun:
    """`units` units of `rows` samples; the encyclopedia is finalised after the first unit and after the last."""

    units: int = 2
    rows: int = 12

    def unit(self, number: int) -> Unit:
        """Return one unit; its id is that of no real run."""
        return Unit(f"{number:032x}", 1, (number,))

    def part(self, number: int) -> Part:
        """Return the samples that belong to one unit."""
        texts = HOSTILE if number % 2 and self.rows > len(HOSTILE) else PLAIN
        return make_part(self.rows, seed=number, texts=texts)

    def content(self, units: int) -> Content:
        """Return what the encyclopedia of the first `units` units holds."""
        parts = [self.part(number) for number in range(units)]
        return Content(make_book(f"after {units}"), Part.join(parts))

    def go(self, store: Store, folder: Path, promised: Callable[[int], None] = lambda _: None) -> None:
        """Run, or go on; `promised` is told how many units are safe by now, and that the end is (units + 1)."""
        ledger = Ledger(folder)
        ledger.create()
        ledger.sweep()
        for number in range(self.units):
            if self.unit(number).id not in ledger.commits():
                commit_part(store, ledger, self.unit(number), self.part(number))
                promised(number + 1)
                if number == 0:
                    self.finalise(store, ledger, 1)
        self.finalise(store, ledger, self.units)
        promised(self.units + 1)

    def finalise(self, store: Store, ledger: Ledger, units: int) -> None:
        """Write the encyclopedia of the first `units` units."""
        commits, content = ledger.commits(), self.content(units)
        path = store.finalise([commits[self.unit(number).id].part for number in range(units)], content.book)
        bulk = store.bulk_ranges() if hasattr(store, "bulk_ranges") else {}
        sealing.write_seal(path.parent, path, bulk, crc.of(content.samples.activations))

    def check_kept(self, store: Store, folder: Path, promised: int) -> None:
        """Check that what was promised before a crash is there after it. Raises ContractError."""
        commits = Ledger(folder).commits() if (folder / "commits").exists() else {}
        for number in range(min(promised, self.units)):
            commit = commits.get(self.unit(number).id)
            require(commit, f"The commit of unit {number} is lost.")
            assert commit is not None
            wrong = differences(read_part(store, Ledger(folder), commit), self.part(number))
            require(not wrong, f"Unit {number} came back changed: {'; '.join(wrong)}.")

    def check_finished(self, store: Store, folder: Path) -> None:
        """Check that the run ended as an uninterrupted one does, sample for sample. Raises ContractError."""
        self.check_kept(store, folder, self.units)
        wrong = differences(read_sealed(store, folder), self.content(self.units))
        require(not wrong, f"The encyclopedia differs from an uninterrupted run's: {'; '.join(wrong)}.")


def commit_part(store: Store, ledger: Ledger, unit: Unit, part: Part) -> Commit:
    """Write a part and then its commit record, as a run does."""
    return ledger.store(store, unit, part, seconds=0.5, tokens=10, computed=8)


def read_part(store: Store, ledger: Ledger, commit: Commit) -> Part:
    """Read a committed part as a run does: its files are compared with the record, then what they hold."""
    ledger.check_files(commit)
    return read_committed(store, commit)


def read_sealed(store: Store, folder: Path) -> Content:
    """Read a finished encyclopedia as a run's reader does: its files are compared with their seal."""
    seal = sealing.check_opening(folder)
    reader = store.open()
    rows = FinishedRows(reader, seal, folder / seal.path)
    try:
        return Content(reader.book, rows.samples(np.arange(len(seal.crc))))
    finally:
        rows.close()


def read_finished(store: Store) -> Content:
    """Read all that a finished encyclopedia holds."""
    reader = store.open()
    try:
        content = Content(reader.book, reader.samples(slice(None)))
        owners = reader.owners()
    finally:
        reader.close()
    require(np.array_equal(owners, content.samples.concept), "owners() differs from the samples' concepts.")
    return content
