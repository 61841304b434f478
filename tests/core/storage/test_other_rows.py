"""A store that returns other rows than it was given is refused where they are used, not by `verify` only."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encyclo.errors import DamagedError
from encyclo.plugins.manager import Plugins
from encyclo.query.encyclopedia import open_run
from encyclo.schema import Columns, Part, Schema
from encyclo.storage import checksums, files
from encyclo.storage.array_reader import EncyclopediaReader, PartReader, StoredSamples
from encyclo.storage.finalise import finalise
from encyclo.storage.ledger import Ledger
from encyclo.storage.sample_rows import CommittedRows
from tests.commands import one_sentence
from tests.stored_runs import HIDDEN, LAYERS, make_run, read_sealed

COLUMNS = ("scale", "concept", "stage", "family", "span")


def rolled(table, *names: str):
    """Return the columns or samples with these columns moved by a row."""
    moved = {name: getattr(table, name) for name in names}
    return dataclasses.replace(
        table,
        **{n: v[1:] + v[:1] if isinstance(v, list) else np.roll(v, 1, axis=0) for n, v in moved.items()},
    )


def lie_about(monkeypatch, reader: type[StoredSamples], method: str, lie: Callable) -> None:
    true = getattr(reader, method)
    monkeypatch.setattr(reader, method, lambda self, *given: lie(true(self, *given)))


@pytest.fixture(params=["hdf5", "zarr"])
def run(request, tmp_path: Path) -> Path:
    return make_run(tmp_path / request.param, request.param)


def rows_of(run: Path) -> CommittedRows:
    store = Plugins().call("store_activations", run.name, location=run, schema=Schema(LAYERS, (3, 4), HIDDEN))
    ledger = Ledger(run)
    return CommittedRows(store, ledger, ledger.ordered(), in_memory=0)


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "stage"])
def test_other_columns_of_a_part_are_not_trained_on(run: Path, monkeypatch, name: str):
    lie_about(monkeypatch, PartReader, "columns", lambda columns: rolled(columns, name))
    with pytest.raises(DamagedError, match=r"The columns of part unit0-\w+ differ from what was committed"):
        rows_of(run)


def test_other_prompts_or_samples_of_a_part_are_refused(run: Path, monkeypatch):
    rows = rows_of(run)
    chosen = np.array([0, 400, 3])
    assert len(rows.samples(chosen)) == 3
    lies: dict[str, Callable[[Part], Part]] = {
        "prompts": lambda part: rolled(part, "prompt"),
        "columns of samples": lambda part: rolled(part, "concept", "span"),
        "activations": lambda part: rolled(part, "activations"),
    }
    for what, lie in lies.items():
        with monkeypatch.context() as patch:
            lie_about(patch, PartReader, "samples", lie)
            with pytest.raises(DamagedError, match=f"The {what} of part .* differ from what was committed"):
                rows.samples(np.arange(10))


def test_an_encyclopedia_is_not_made_of_other_rows(run: Path, monkeypatch):
    before = (run / "seal.json").read_bytes()
    lie_about(monkeypatch, PartReader, "columns", lambda columns: rolled(columns, "concept"))
    store = Plugins().call("store_activations", run.name, location=run, schema=Schema(LAYERS, (3, 4), HIDDEN))
    with pytest.raises(DamagedError, match="differ from what was committed"):
        finalise(store, run, Ledger(run).ordered(), None)
    assert (run / "seal.json").read_bytes() == before


def test_other_rows_of_an_encyclopedia_are_refused(run: Path, monkeypatch):
    lie: Callable[[Columns], Columns] = lambda columns: rolled(columns, "concept")  # noqa: E731
    with monkeypatch.context() as patch:
        lie_about(patch, EncyclopediaReader, "columns", lie)
        with pytest.raises(DamagedError, match=r"The columns of samples in .* differ from what was written"):
            open_run(run)
    for what, names in (("prompts", ["prompt"]), ("columns of samples", ["family", "span"])):
        with monkeypatch.context() as patch, open_run(run) as book:
            assert len(book.samples("name 3")) > 3
            lie_about(patch, EncyclopediaReader, "samples", lambda part, names=names: rolled(part, *names))
            with pytest.raises(DamagedError, match=f"The {what} in .* differ from what was written"):
                book.samples("name 3")


def test_a_run_and_a_page_of_other_rows_end_in_one_sentence(
    tiny_run, tiny_flags, tmp_path, encyclo, monkeypatch
):
    with monkeypatch.context() as patch:
        lie_about(patch, PartReader, "columns", lambda columns: rolled(columns, "concept"))
        flags = ["--sampler", "templates", "--limit", "6", *tiny_flags]
        result = encyclo("run", *flags, "--out", tmp_path / "run")
        assert result.returncode == 1 and "The columns of part" in one_sentence(result.stderr)
    shutil.copytree(tiny_run, tmp_path / "read")
    (tmp_path / "read" / "details.json").unlink()  # so that `report` reads the samples again
    with monkeypatch.context() as patch:
        lie_about(patch, EncyclopediaReader, "samples", lambda part: rolled(part, "prompt"))
        for command in ("show", "report"):
            result = encyclo(command, tmp_path / "read", *(["animal"] if command == "show" else []))
            assert result.returncode == 1 and "The prompts in" in one_sentence(result.stderr)


def test_records_of_the_first_version_have_no_checksums_of_columns(run: Path):
    for path in (run / "commits").glob("*.json"):
        record = read_sealed(run, f"commits/{path.name}")
        files.write_json(
            path, checksums.sealed({k: v for k, v in record.items() if k not in ("columns", "prompts")})
        )
    seal = read_sealed(run, "seal.json")
    kept = {key: value for key, value in seal.items() if key not in ("columns", "prompts")}
    files.write_json(run / "seal.json", checksums.sealed(kept))
    assert len(rows_of(run).samples(np.arange(4))) == 4
    with open_run(run) as book:
        assert len(book.samples("name 3")) > 3


def test_a_seal_whose_checksums_do_not_fit_each_other_is_refused(run: Path):
    seal = read_sealed(run, "seal.json")
    files.write_json(run / "seal.json", checksums.sealed({**seal, "prompts": seal["prompts"][:-8]}))
    with pytest.raises(DamagedError, match=r"seal\.json can't be read"):
        open_run(run)
