"""The built-in stores keep the contract of stores, and two stores that are broken on purpose don't."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from encyclo.errors import DamagedError
from encyclo.schema import Part
from encyclo.storage import checksums, files
from encyclo.storage.array_reader import PartReader, explained
from encyclo.storage.checksums import OWN_NAMES
from encyclo.testing.contract import ContractError
from encyclo.testing.fixtures.small_run import SmallRun
from encyclo.testing.fixtures.stores_data import SCHEMA
from encyclo.testing.fixtures.stores_memory import MemoryStore
from encyclo.testing.stores import THOROUGH, Effort, StoreContract, check_store
from encyclo_hdf5.store import Hdf5Store

ON_DISK = {
    "names_of_files", "name_of_the_encyclopedia", "power_cuts", "refused_writes", "full_disk_in_the_library", "kill_9", "damaged_files",
    "any_order_of_calls",
}  # fmt: skip


class TestHdf5(StoreContract):
    plugin = "hdf5"
    effort = Effort(kills=8)  # tests/core/pipeline/test_crashes.py kills real runs


class TestZarr(StoreContract):
    """Zarr writes about 50 files per encyclopedia, so the same checks take far longer: one of them is slow."""

    plugin = "zarr"
    effort = Effort(kills=3, mutations=150, examples=4, survivals=1)
    slow_checks = frozenset({"refused_writes"})


@pytest.mark.slow
class TestZarrThoroughly(StoreContract):
    plugin = "zarr"
    effort = THOROUGH


@pytest.mark.slow
class TestHdf5Thoroughly(StoreContract):
    plugin = "hdf5"
    effort = THOROUGH


class OracleContract(StoreContract):
    plugin = "memory"

    def make(self, folder: Path) -> MemoryStore:
        return MemoryStore(folder, SCHEMA)


@pytest.mark.parametrize("check", sorted(OracleContract.checks().keys() - ON_DISK))
def test_the_oracle_keeps_what_needs_no_disk(tmp_path, check):
    assert OracleContract().find(check, tmp_path).problem is None


class UnsyncedStore(Hdf5Store):
    """Whole files under their final names, never flushed to the disk."""

    def write_part(self, name: str, part: Part) -> None:
        elsewhere = Path(tempfile.mkdtemp(dir=self.location.parent))
        (elsewhere / "parts").mkdir()
        Hdf5Store(elsewhere, SCHEMA).write_part(name, part)
        os.replace(elsewhere / "parts" / f"{name}.h5", self.part_path(name))


class RewritingStore(Hdf5Store):
    """One growing file whose last chunk is rewritten in place with every part, flushed by HDF5 alone."""

    def write_part(self, name: str, part: Part) -> None:
        scratch = self._scratch()
        Hdf5Store(scratch, SCHEMA).write_part("part", part)
        data = np.frombuffer((scratch / "parts" / "part.h5").read_bytes(), np.uint8)
        with h5py.File(self.location / "all.h5", "a") as file:
            if "bytes" not in file:
                file.create_dataset("bytes", (0,), "u1", maxshape=(None,), chunks=(3000,), compression="lzf")
            start = len(file["bytes"])
            file["bytes"].resize((start + len(data),))
            file["bytes"][start:] = data
            file.attrs["index"] = json.dumps({**self._index(file), name: [start, len(data)]})
            file.flush()

    def open_part(self, name: str) -> PartReader:
        path, scratch = self.location / "all.h5", self._scratch()
        with explained("read", path), h5py.File(path, "r") as file:
            start, length = self._index(file)[name]
            (scratch / "parts" / f"{name}.h5").write_bytes(file["bytes"][start : start + length].tobytes())
        return Hdf5Store(scratch, SCHEMA).open_part(name)

    def _index(self, file: h5py.File) -> dict[str, list[int]]:
        return json.loads(file.attrs.get("index", "{}"))

    def _scratch(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.location.parent))
        (folder / "parts").mkdir()
        return folder


class UnsyncedContract(StoreContract):
    plugin = "unsynced"

    def make(self, folder: Path) -> Hdf5Store:
        return UnsyncedStore(folder, SCHEMA)


class RewritingContract(StoreContract):
    plugin = "rewriting"

    def make(self, folder: Path) -> Hdf5Store:
        return RewritingStore(folder, SCHEMA)


@pytest.mark.parametrize("contract", [UnsyncedContract, RewritingContract])
def test_a_broken_store_fails_the_power_cuts(tmp_path, contract):
    with pytest.raises(ContractError, match=r"A power cut after call \d+ of \d+"):
        contract().check_power_cuts(tmp_path)


@pytest.mark.parametrize("contract", [UnsyncedContract, RewritingContract])
def test_a_broken_store_does_work_while_nothing_crashes(tmp_path, contract):
    """So that it's the crashes that find it, and nothing trivial."""
    for check in ("parts_come_back", "finalising_joins_in_order", "rows_are_read"):
        place = tmp_path / check
        place.mkdir()
        assert contract().find(check, place).problem is None


class RenamingContract(StoreContract):
    """A third party's encyclopedia, under a name of its own."""

    plugin = "renaming"
    name = "samples"

    def make(self, folder: Path) -> Hdf5Store:
        store = Hdf5Store(folder, SCHEMA)
        vars(store)["ENCYCLOPEDIA"] = self.name
        return store


def test_an_encyclopedia_may_have_any_name(tmp_path):
    for check in ("name_of_the_encyclopedia", "finalising_joins_in_order", "names_of_files"):
        (tmp_path / check).mkdir()
        assert RenamingContract().find(check, tmp_path / check).problem is None


@pytest.mark.parametrize(
    "name", [*sorted(OWN_NAMES - {"parts", "commits"}), ".lock", "parts/samples", "../samples"]
)
def test_an_encyclopedia_must_not_take_a_name_or_a_place_of_the_runs_own(tmp_path, name):
    contract, run = RenamingContract(), tmp_path / "run"
    contract.name = name
    run.mkdir()
    problem = contract.find("name_of_the_encyclopedia", run).problem
    assert problem is not None
    assert re.fullmatch(r"StoreError: The encyclopedia that .*, can't be sealed: .*\.", problem)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/passwd", "a/b", ".hidden", "run.json", "parts", 5, None]
)
def test_a_seal_that_names_another_place_is_refused(tmp_path, name):
    SmallRun().go(Hdf5Store(tmp_path, SCHEMA), tmp_path)
    record = checksums.read_sealed(tmp_path / checksums.SEAL, at_most=2**20, within=tmp_path)
    files.write_json(tmp_path / checksums.SEAL, checksums.sealed({**record, "path": name}))
    with pytest.raises(DamagedError, match=r"seal\.json can't be read"):
        checksums.check_opening(tmp_path)


def test_check_store_does_without_pytest(tmp_path):
    """Checks in processes of their own find the contract by name there too."""
    findings = check_store("hdf5", tmp_path, Effort(kills=1, mutations=20, examples=1, steps=5, survivals=1))
    assert [finding.check for finding in findings] == list(StoreContract.checks())
    assert [finding.problem for finding in findings if not finding.kept] == []


class MisnamingContract(StoreContract):
    plugin = "hdf5"
    known_failures = {"no_such_check": "misspelt"}  # noqa: RUF012


class PessimisticContract(OracleContract):
    known_failures = {"rows_are_read": "no reason"}  # noqa: RUF012


def test_a_known_failure_must_be_a_check_and_must_fail(tmp_path):
    class Metafunc:
        fixturenames = ("check",)

    with pytest.raises(
        ContractError,
        match="no_such_check in known_failures or slow_checks, but the checks are parts_come_back",
    ):
        MisnamingContract().pytest_generate_tests(Metafunc())
    with pytest.raises(ContractError, match="rows_are_read passes"):
        PessimisticContract().test_contract("rows_are_read", tmp_path)
    finding = PessimisticContract().find("rows_are_read", tmp_path)
    assert (finding.problem, finding.known, finding.kept) == (None, "no reason", False)


def test_every_check_says_what_it_asks():
    for name, asks in StoreContract.checks().items():
        assert asks.endswith(".") and len(asks) > 30, name
