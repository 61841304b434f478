"""The contract of the hook `store_activations`: a store must never lose committed samples.

    from encyclo.testing.stores import StoreContract

    class TestMyStore(StoreContract):
        plugin = "mystore"

pytest then runs every check with the installed plugin `mystore`. `check_store("mystore", folder)` does the same
without pytest. Checks that kill, damage or limit processes need POSIX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from encyclo.errors import StoreError
from encyclo.plugins.manager import Plugins
from encyclo.schema import Part
from encyclo.storage import checksums
from encyclo.storage.ledger import Ledger
from encyclo.testing import stores_crashes
from encyclo.testing.contract import Contract, Finding, require
from encyclo.testing.fixtures.small_run import SmallRun, commit_part, read_finished
from encyclo.testing.fixtures.stores_data import HOSTILE, SCHEMA, Content, differences, make_book, make_part
from encyclo.testing.fixtures.stores_memory import take
from encyclo.types import Store


@dataclass(frozen=True)
class Effort:
    """The sizes of the random checks."""

    kills: int = 20
    mutations: int = 1_000
    examples: int = 30
    steps: int = 20
    survivals: int = 3
    """How many of `disks.SURVIVALS` to try for a power cut at each call."""
    every_call: bool = False
    """Also try the calls between the first and the last of many syncs in a row."""


QUICK = Effort()
THOROUGH = Effort(kills=300, mutations=20_000, examples=300, steps=50, survivals=6, every_call=True)


class StoreContract(Contract):
    """The contract of stores; subclass it and name the plugin."""

    effort: ClassVar[Effort] = QUICK

    def make(self, folder: Path) -> Store:
        """Return the store of the run directory `folder`, as in a new process."""
        store: Store = _plugins().call("store_activations", self.plugin, location=folder, schema=SCHEMA)
        return store

    def fresh(self, folder: Path) -> Store:
        """Return the store of a new run directory with its folders."""
        Ledger(folder).create()
        return self.make(folder)

    def check_parts_come_back(self, folder: Path) -> None:
        """A part of no, one, a few or many samples is read back bit for bit, with types and shapes."""
        store = self.fresh(folder)
        for rows in (0, 1, 6, 250, 601):
            part = make_part(rows, seed=rows)
            store.write_part(f"p{rows}", part)
            _same(store.read_part(f"p{rows}"), part, f"A part of {rows} samples")
            require(
                store.read_part(f"p{rows}").checksum() == part.checksum(),
                f"The checksum of a part of {rows} samples changed.",
            )

    def check_extreme_numbers_come_back(self, folder: Path) -> None:
        """Subnormal and negative zero activations and the smallest and largest scales keep every bit."""
        part = make_part(4)
        bits = np.array([0x8000, 0x0001, 0x83FF, 0x7BFF], np.uint16).view(np.float16)
        part.activations[..., :4] = bits
        part.scale[:] = np.array([[2**-126, 2.0**112]] * 4, np.float32)
        part.concept[:] = [0, 1, 2**31 - 1, 2]
        part.stage[:] = [0, 1, 2, 127]
        store = self.fresh(folder)
        store.write_part("a", part)
        found = store.read_part("a")
        _same(found, part, "The part")
        require(found.activations.tobytes() == part.activations.tobytes(), "A bit of an activation changed.")

    def check_hostile_texts_come_back(self, folder: Path) -> None:
        """Prompts, families, names and definitions are data: paths, markup and 10,000 characters come back."""
        store = self.fresh(folder)
        part = make_part(len(HOSTILE), texts=HOSTILE)
        part = Part(**{**vars(part), "family": list(reversed(HOSTILE))})
        before = _beside(folder)
        store.write_part("a", part)
        _same(store.read_part("a"), part, "The part")
        store.finalise(["a"], make_book(names=HOSTILE))
        _same(read_finished(self.make(folder)), Content(make_book(names=HOSTILE), part), "The encyclopedia")
        require(_beside(folder) == before, f"It wrote elsewhere: {sorted(_beside(folder) ^ before)}.")

    def check_each_hostile_text_alone(self, folder: Path) -> None:
        """A text alone in its part comes back, also at the end of a fixed-width column."""
        store = self.fresh(folder)
        for number, text in enumerate(HOSTILE):
            part = make_part(1, texts=(text,))
            store.write_part(f"p{number}", part)
            _same(store.read_part(f"p{number}"), part, f"The prompt {text[:40]!r}")

    def check_rewriting_replaces_a_part(self, folder: Path) -> None:
        """Writing a part again replaces it completely, whether it is longer or shorter."""
        store = self.fresh(folder)
        for rows in (6, 300, 2):
            store.write_part("a", make_part(rows, seed=rows))
            _same(store.read_part("a"), make_part(rows, seed=rows), f"The part rewritten with {rows} samples")

    def check_a_part_that_was_never_written(self, folder: Path) -> None:
        """Reading or joining it raises StoreError naming it; other parts stay readable."""
        store = self.fresh(folder)
        store.write_part("a", make_part())
        _refuses(lambda: store.read_part("never-written"), "never-written")
        _refuses(lambda: store.finalise(["a", "never-written"], make_book()), "never-written")
        _same(store.read_part("a"), make_part(), "The other part")

    def check_opening_before_the_end(self, folder: Path) -> None:
        """Opening an encyclopedia that was never finalised raises StoreError and creates no file."""
        store = self.fresh(folder)
        store.write_part("a", make_part())
        before = _listing(folder)
        _refuses(store.open, "")
        require(_listing(folder) == before, "Opening made a file.")

    def check_finalising_joins_in_order(self, folder: Path) -> None:
        """Samples are in the order in which the parts are given, not in which they were written."""
        store = self.fresh(folder)
        parts = {name: make_part(rows, seed=rows) for name, rows in (("b", 300), ("c", 0), ("a", 7))}
        for name, part in parts.items():
            store.write_part(name, part)
        for order in (["a", "b", "c"], ["c", "b", "a"], ["b"]):
            store.finalise(order, make_book(names=("x",) * 5))
            joined = Part.join([parts[name] for name in order])
            expected = Content(make_book(names=("x",) * 5), joined)
            _same(read_finished(self.make(folder)), expected, f"The encyclopedia of {order}")

    def check_a_failed_finalise_leaves_the_old_one(self, folder: Path) -> None:
        """If finalising again fails, the old encyclopedia stays complete and readable."""
        store = self.fresh(folder)
        store.write_part("a", make_part(300))
        store.finalise(["a"], make_book("old"))
        before = _listing(folder)
        _refuses(lambda: store.finalise(["a", "gone"], make_book("new")), "gone")
        _same(read_finished(self.make(folder)), Content(make_book("old"), make_part(300)), "The old one")
        require(_listing(folder) == before, f"It left {sorted(_listing(folder) ^ before)}.")

    def check_a_new_process_finds_everything(self, folder: Path) -> None:
        """Another store object on the same directory reads, rewrites and finalises the first one's parts."""
        self.fresh(folder).write_part("a", make_part(5))
        self.make(folder).write_part("b", make_part(6, seed=1))
        self.make(folder).finalise(["a", "b"], make_book())
        _same(self.make(folder).read_part("a"), make_part(5), "The part")
        joined = Part.join([make_part(5), make_part(6, seed=1)])
        _same(read_finished(self.make(folder)), Content(make_book(), joined), "The encyclopedia")

    def check_rows_are_read(self, folder: Path) -> None:
        """Any slice and any ascending rows of the encyclopedia can be read, across parts and chunks."""
        store = self.fresh(folder)
        parts = [make_part(rows, seed=rows) for rows in (260, 3, 270)]
        for number, part in enumerate(parts):
            store.write_part(f"p{number}", part)
        store.finalise(["p0", "p1", "p2"], make_book())
        whole, reader = Part.join(parts), store.open()
        generator = np.random.default_rng(0)
        chosen = [np.sort(generator.choice(len(whole), k, replace=False)) for k in (1, 2, 50, 533)]
        wanted: list[slice | np.ndarray[Any, np.dtype[np.int64]]]
        wanted = [slice(None), slice(255, 268), slice(0, 0), np.array([], np.int64), *chosen]
        for rows in wanted:
            _same(reader.samples(rows), take(whole, rows), f"The rows {rows}")
        reader.close()

    def check_names_of_files(self, folder: Path) -> None:
        """Parts are in parts/ under their names; the ledger's sweep removes uncommitted parts and keeps the rest."""
        store, ledger, run = self.fresh(folder), Ledger(folder), SmallRun()
        commit_part(store, ledger, run.unit(0), run.part(0))
        _, lost = ledger.new_attempt(run.unit(0))
        kept = _listing(folder)
        store.write_part(lost, run.part(1))
        require(not any(".tmp-" in name for name in _listing(folder)), "A temporary file was left.")
        new = _listing(folder) - kept
        require(
            all(name.startswith(f"parts/{lost}") for name in new),
            f"The part {lost} was written as {sorted(new)}; the ledger looks for parts/{lost} or parts/{lost}.*.",
        )
        ledger.sweep()
        require(_listing(folder) == kept, f"The sweep left or lost {sorted(_listing(folder) ^ kept)}.")
        run.check_kept(self.make(folder), folder, 1)

    def check_name_of_the_encyclopedia(self, folder: Path) -> None:
        """It is directly in the run directory, with a name that isn't hidden or used by the run."""
        store, run = self.fresh(folder), SmallRun(units=1)
        commit_part(store, Ledger(folder), run.unit(0), run.part(0))
        before = {path.name for path in folder.iterdir()}
        run.finalise(store, folder, 1)
        name = checksums.read_seal(folder).path
        require(name not in before, f"The encyclopedia's name {name} was taken.")
        run.check_finished(self.make(folder), folder)

    def check_power_cuts(self, folder: Path) -> None:
        """After a power cut at any write, rename or sync, all commits are there and the run can resume."""
        stores_crashes.check_power_cuts(self.make, folder, self.effort.survivals, self.effort.every_call)

    def check_refused_writes(self, folder: Path) -> None:
        """A full disk or an I/O error at any call gives one sentence; the run can resume after it is fixed."""
        stores_crashes.check_refused_writes(self.make, folder, self.effort.every_call)

    def check_full_disk_in_the_library(self, folder: Path) -> None:
        """The same if the library that writes the file runs out of space midway."""
        stores_crashes.check_full_disk_in_the_library(self.make, folder)

    def check_kill_9(self, folder: Path) -> None:
        """Killed at random instants, a run loses no committed unit and ends as an uninterrupted one."""
        stores_crashes.check_kill_9(self.make, folder, self.effort.kills)

    def check_damaged_files(self, folder: Path) -> None:
        """A damaged part, record or encyclopedia is refused in one sentence: no crash, hang or other value."""
        stores_crashes.check_damaged_files(self.make, folder, self.effort.mutations)

    def check_any_order_of_calls(self, folder: Path) -> None:
        """Writes, commits, crashes, resumes, finalises and reads in any order agree with the oracle."""
        from encyclo.testing.stores_machine import check_machine

        check_machine(self.make, folder, self.effort.examples, self.effort.steps)


def check_store(plugin: str, folder: Path, effort: Effort = QUICK) -> list[Finding]:
    """Run the whole contract on an installed store, in folders below the empty `folder`."""
    contract = StoreContract()
    vars(contract).update(plugin=plugin, effort=effort)  # not a new class: other processes find it by name
    return contract.report(folder)


@cache
def _plugins() -> Plugins:
    """Find the installed plugins only once: it takes longer than most checks."""
    return Plugins()


def _same(found: object, expected: object, what: str) -> None:
    wrong = differences(found, expected)
    require(not wrong, f"{what} came back changed: {'; '.join(wrong[:5])}.")


def _refuses(call: Callable[[], object], naming: str) -> None:
    try:
        call()
    except StoreError as error:
        require(naming in str(error), f"The error doesn't name {naming}: {error}")
        require("\n" not in str(error), f"The error is not one sentence: {error}")
        return
    except Exception as error:
        raise AssertionError(
            f"{type(error).__name__} ({error}) was raised where {naming or 'the encyclopedia'} is missing; "
            "raise a StoreError."
        ) from error
    raise AssertionError(
        f"Nothing was raised where {naming or 'the encyclopedia'} is missing; raise a StoreError."
    )


def _beside(folder: Path) -> set[str]:
    return {path.name for path in (*folder.parent.iterdir(), *folder.parent.parent.iterdir())}


def _listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
