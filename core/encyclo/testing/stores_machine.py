"""The store contract's stateful machine: any order of calls and crashes, against the oracle in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from encyclo.errors import StoreError
from encyclo.storage import files
from encyclo.storage.ledger import Commit, Ledger, Unit
from encyclo.testing.contract import ContractError, require
from encyclo.testing.faults.disks import CountingDisk, HastyDisk
from encyclo.testing.fixtures.small_run import MakeStore, commit_part, read_finished, read_part
from encyclo.testing.fixtures.stores_data import HOSTILE, SCHEMA, differences, make_book, make_part
from encyclo.testing.fixtures.stores_memory import MemoryStore

UNITS = tuple(Unit(f"{number:032x}", 1, (number,)) for number in range(5))
NUMBERS = st.integers(0, len(UNITS) - 1)
ROWS = st.sampled_from((0, 1, 2, 7, 251))
SEEDS = st.integers(0, 30)


class Interrupted(KeyboardInterrupt):
    """The process is killed: no plugin is to blame, as after Ctrl-C."""


class DyingDisk(CountingDisk):
    """Is killed at the n-th rename or link: files written before keep their temporary names."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def step(self, call: str, path: Path) -> None:
        """Count renames and links. Raises Interrupted if the process is dead."""
        if call in ("replace", "link"):
            self.calls -= 1
            if self.calls < 0:
                raise Interrupted

    def remove(self, path: Path) -> None:
        """Remove nothing: a killed process can't clean up."""


class StoreMachine(RuleBasedStateMachine):
    """Makes the same calls of a store and of the oracle, and compares the results."""

    make: MakeStore
    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        self.oracle = MemoryStore(self.folder, SCHEMA)
        self.committed: dict[str, Commit] = {}
        self.loose: dict[str, str] = {}  # parts that were written and never committed, by unit
        self.turn = 0
        self.start()

    def start(self) -> None:
        """Start as a new process."""
        self.ledger = Ledger(self.folder)
        self.ledger.create()
        self.ledger.sweep()
        self.loose.clear()
        self.store = self.make(self.folder)
        for commit in self.committed.values():
            self.compare(commit)

    @rule(number=NUMBERS, rows=ROWS, seed=SEEDS)
    def write(self, number: int, rows: int, seed: int) -> None:
        """Write a part of a unit without committing it (yet)."""
        unit, part = UNITS[number], make_part(rows, seed, texts=HOSTILE)
        _, name = self.ledger.new_attempt(unit)
        self.store.write_part(name, part)
        self.oracle.write_part(name, part)
        self.loose[unit.id] = name

    @precondition(lambda self: self.loose)
    @rule(data=st.data(), rows=ROWS, seed=SEEDS)
    def rewrite(self, data: Any, rows: int, seed: int) -> None:
        """Replace a part that was never committed."""
        name, part = self.loose[data.draw(st.sampled_from(sorted(self.loose)))], make_part(rows, seed)
        self.store.write_part(name, part)
        self.oracle.write_part(name, part)

    @rule(number=NUMBERS, rows=ROWS, seed=SEEDS)
    def commit(self, number: int, rows: int, seed: int) -> None:
        """Write and commit a unit, perhaps a second time: the first commit wins."""
        unit, part = UNITS[number], make_part(rows, seed, texts=HOSTILE)
        winner = commit_part(self.store, self.ledger, unit, part)
        if unit.id not in self.committed:
            self.oracle.write_part(winner.part, part)
            self.committed[unit.id] = winner

    @rule(number=NUMBERS, seed=SEEDS, calls=st.integers(0, 1))
    def die_while_committing(self, number: int, seed: int, calls: int) -> None:
        """Die before the part or its record has its final name; a new process resumes."""
        unit = UNITS[number]
        if unit.id in self.committed:
            return
        try:
            with files.using(DyingDisk(calls)):
                commit_part(self.store, self.ledger, unit, make_part(6, seed))
        except Interrupted:
            pass
        self.resume()

    @precondition(lambda self: self.committed)
    @rule(seed=SEEDS)
    def die_while_finalising(self, seed: int) -> None:
        """Die before the new encyclopedia has its final name: the old one stays."""
        names = [commit.part for _, commit in sorted(self.committed.items())]
        try:
            with files.using(DyingDisk(0)):
                self.store.finalise(names, make_book(f"dying {seed}"))
        except Interrupted:
            pass
        else:
            raise ContractError(
                "The store finalises without renaming through encyclo.storage.files; use its functions, which do."
            )
        self.resume()

    @rule()
    def resume(self) -> None:
        """Drop every object of this process; a new one finds what was committed."""
        del self.store, self.ledger
        self.start()

    @precondition(lambda self: self.committed)
    @rule(seed=SEEDS, order=st.randoms(use_true_random=False))
    def finalise(self, seed: int, order: Any) -> None:
        """Join the committed parts, in any order."""
        names = [commit.part for _, commit in sorted(self.committed.items())]
        order.shuffle(names)
        book = make_book(f"book {seed}", names=HOSTILE[: 3 + seed % 5])
        self.store.finalise(names, book)
        self.oracle.finalise(names, book)

    @rule()
    def read_all(self) -> None:
        """Read the encyclopedia, or find that there is none."""
        try:
            expected = read_finished(self.oracle)
        except StoreError:
            try:
                self.store.open()
            except StoreError:
                return
            raise ContractError(
                "An encyclopedia that was never finalised can be opened; raise a StoreError in open."
            ) from None
        wrong = differences(read_finished(self.store), expected)
        require(not wrong, f"The encyclopedia differs from the oracle's: {wrong}")

    @rule(seed=SEEDS)
    def read_rows(self, seed: int) -> None:
        """Read random rows of the encyclopedia."""
        try:
            expected = self.oracle.open()
        except StoreError:
            return
        count, generator = len(expected.owners()), np.random.default_rng(seed)
        rows = np.flatnonzero(generator.random(count) < generator.choice((0.01, 0.5)))
        reader = self.store.open()
        wrong = differences(reader.samples(rows), expected.samples(rows))
        reader.close()
        require(not wrong, f"The rows {rows} differ from the oracle's: {wrong}")

    @invariant()
    def nothing_committed_is_lost(self) -> None:
        """The ledger has every commit, and every committed part is the oracle's."""
        require(self.ledger.commits() == self.committed, "The ledger has other commits.")
        # One in each step, in turn; all of them when a new process starts and at the end.
        self.turn += 1
        for _, commit in sorted(self.committed.items())[self.turn % max(1, len(self.committed)) :][:1]:
            self.compare(commit)

    def compare(self, commit: Commit) -> None:
        """Compare one committed part with the oracle's."""
        wrong = differences(read_part(self.store, self.ledger, commit), self.oracle.read_part(commit.part))
        require(not wrong, f"Part {commit.part} differs from the oracle's: {wrong}")

    def teardown(self) -> None:
        """Check the end state from a new process."""
        self.start()
        shutil.rmtree(self.folder)

    @invariant()
    def loose_parts_are_there(self) -> None:
        """Parts that this process wrote and never committed can be read until it dies."""
        for _, name in sorted(self.loose.items())[self.turn % max(1, len(self.loose)) :][:1]:
            wrong = differences(self.store.read_part(name), self.oracle.read_part(name))
            require(not wrong, f"Part {name} differs from the oracle's: {wrong}")


def check_machine(make: MakeStore, folder: Path, examples: int, steps: int) -> None:
    """Run the machine for `examples` random programs of at most `steps` calls, the same ones every time."""
    machine = type("Machine", (StoreMachine,), {"make": staticmethod(make), "root": folder})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with files.using(HastyDisk()):
        run_state_machine_as_test(machine, settings=chosen)
