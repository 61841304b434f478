"""The finished encyclopedia: a store writes it from committed parts, and it opens only if it matches its seal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from encyclo.schema import Book
from encyclo.storage import checksums, run_files
from encyclo.storage.ledger import Commit, Ledger, prompt_sums, sums_of
from encyclo.storage.sample_rows import CommittedRows, FinishedRows
from encyclo.types import Reader, Store


def finalise(store: Store, run: Path, commits: Sequence[Commit], book: Book) -> Path:
    """Join the commits' parts and the book into the run's encyclopedia and seal it; return its path.

    A crash leaves the old encyclopedia, or a new one without a seal, which can't be opened. The same command then
    finalises again, since the parts are still there. Raises DamagedError naming a part whose bytes have changed.
    """
    columns = _check(store, Ledger(run), [commit for commit in commits if commit.rows])
    path = store.finalise([commit.part for commit in commits], book)
    find_bulk: Callable[[], Mapping[str, checksums.Ranges]] | None = getattr(store, "bulk_ranges", None)
    layers = len(book.attributes.layers)
    sums = [np.empty((0, layers), np.uint32), *(sums_of(commit, layers) for commit in commits)]
    prompts = [prompt_sums(commit) for commit in commits if commit.rows]
    known = [found for found in prompts if found is not None]
    samples = checksums.SampleSums(
        np.concatenate(sums), columns, np.concatenate(known) if len(known) == len(prompts) > 0 else None
    )
    bulk = find_bulk() if find_bulk else {}
    checksums.write_seal(run, book.attributes.run_id, path, bulk, samples)
    return path


def _check(store: Store, ledger: Ledger, commits: Sequence[Commit]) -> str:
    """Compare every byte of the commits' parts with its checksum before the old encyclopedia is replaced.

    Returns the checksum of all their columns.
    """
    if not commits:
        return ""
    rows, start = CommittedRows(store, ledger, commits, in_memory=0), 0
    for commit in commits:
        rows.halves(np.arange(start, start + commit.rows))
        start += commit.rows
    rows.close()
    return rows.columns.checksum()


def open_finished(store: Store, run: Path) -> tuple[Reader, FinishedRows]:
    """Open the run's encyclopedia after comparing it, and run.json, with the seal.

    Raises StoreError or DamagedError.
    """
    seal = checksums.check_opening(run)
    run_files.check_record(run, seal)
    reader = store.open()
    try:
        return reader, FinishedRows(reader, seal, run / seal.path)
    except BaseException:
        reader.close()
        raise
