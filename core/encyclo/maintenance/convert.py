"""Copy a run from one store to another, bit for bit: every committed part, then the encyclopedia."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.maintenance.file_checks import round_faults, run_file_faults
from encyclo.plugins.manager import Plugins
from encyclo.runs.directory import check_parent, check_usable, read_record
from encyclo.runs.reopen import reopen_store
from encyclo.runs.session import check_store
from encyclo.schema import Book, SignatureTable
from encyclo.storage import checksums, files, run_files, safe_read
from encyclo.storage.finalise import finalise, open_finished
from encyclo.storage.ledger import Commit, Ledger, Unit, read_committed, sums_of
from encyclo.storage.run_location import fetched, opened

_REWRITTEN = {"run.json", "commits", "parts", checksums.SEAL}


def convert(source: Path, store_name: str, out: Path) -> Path:
    """Write the run `source` into the new directory `out` with the store `store_name`; return `out`.

    Everything read is compared with its checksums. `out` is written whole or not at all. Its run.json names the new
    store, so the same command with `--store` and `--out` can continue the copy. Raises RunDirectoryError,
    DamagedError or StoreError.
    """
    source = fetched(source, parts=True)
    record, plugins = read_record(source), Plugins()
    plugins.require("store_activations", store_name)
    with opened(out) as target:
        check_store(plugins, store_name, target)
        _check_free(target)
        for name, what in (*run_file_faults(source), *round_faults(source, record["run_id"])):
            raise DamagedError(f"{source / name}: {what}; {checksums.ADVICE}.")
        with files.new_folder(target) as folder:
            _write(source, folder, _with_store(record, plugins, store_name), plugins)
    return out


def _with_store(record: Mapping[str, Any], plugins: Plugins, name: str) -> dict[str, Any]:
    """Return run.json's content with the store `name`."""
    loaded, named = plugins.load(name), dict(record.get("provenance", {}).get("plugins", {}))
    named.pop(record["config"]["store"], None)
    named[name] = f"{loaded.package} {loaded.version}"
    provenance = {**record.get("provenance", {}), "plugins": named}
    return {**record, "config": {**record["config"], "store": name}, "provenance": provenance}


def _write(source: Path, out: Path, record: dict[str, Any], plugins: Plugins) -> None:
    """Write the run `source` into the folder `out` with the store that `record` names."""
    files.write_json(out / "run.json", checksums.sealed(record))
    ledger, there = Ledger(out), Ledger(source)
    ledger.create()
    before, after = reopen_store(source, read_record(source), plugins), reopen_store(out, record, plugins)
    copied = []
    for commit in _ordered(source, there.ordered()):
        if not commit.rows:  # a unit without samples has no part
            ledger.commit(commit)
            continue
        if commit.files:
            there.check_files(commit)
        part = read_committed(before, commit)
        unit = Unit(commit.unit, commit.stage, (), sampler=commit.sampler)
        copied.append(ledger.store(after, unit, part, commit.seconds, commit.tokens, commit.tokens_computed))
    if not (source / checksums.SEAL).exists():
        return
    reader, rows = open_finished(before, source)
    book, there_too = reader.book, reader.book.signatures
    signatures = SignatureTable(there_too.mean, there_too.variance, there_too.count)  # before it is closed
    reader.close()
    config = {**_config_of(source, book), "store": record["config"]["store"]}
    attributes = dataclasses.replace(book.attributes, config=json.dumps(config, sort_keys=True))
    finalise(after, out, copied, dataclasses.replace(book, attributes=attributes, signatures=signatures))
    for path in sorted(source.iterdir()):
        if path.name not in {*_REWRITTEN, rows.seal.path} and not path.name.startswith("."):
            safe_read.copy_tree(path, out / path.name, within=source)
    run_files.seal_as_it_is(out, record["run_id"])


def _check_free(out: Path) -> None:
    check_usable(out)
    if (out / "run.json").exists():
        raise RunDirectoryError(f"--out {out} holds a run; choose an empty or a new directory.")
    if out.exists() and (out.resolve() == Path.cwd() or out.resolve().is_mount()):
        kind = "the current folder" if out.resolve() == Path.cwd() else "a mount point"
        raise RunDirectoryError(f"--out {out} is {kind}, which can't be replaced; choose a new folder in it.")
    check_parent(out)  # the copy is written beside it
    if out.exists() and any(out.iterdir()):
        raise RunDirectoryError(f"--out {out} is not empty; choose an empty or a new directory.")


def _config_of(source: Path, book: Book) -> dict[str, Any]:
    try:
        return dict(safe_read.parse_json(book.attributes.config.encode("utf-8")))
    except (ValueError, TypeError) as error:
        raise DamagedError(
            f"The configuration in the encyclopedia of {source} can't be read: {error}; {safe_read.RESTORE}."
        ) from error


def _ordered(source: Path, commits: list[Commit]) -> list[Commit]:
    """Return the commits in the order of their samples in the encyclopedia, found by their checksums."""
    if not (source / checksums.SEAL).exists():
        return commits
    sums = checksums.read_seal(source).samples.crc
    left = {c.unit: (c, sums_of(c, sums.shape[1])) for c in commits if c.rows}
    ordered: list[Commit] = [commit for commit in commits if not commit.rows]
    at = 0
    while left:
        for unit, (commit, own) in left.items():
            if np.array_equal(sums[at : at + len(own)], own):
                ordered.append(commit)
                at += len(own)
                del left[unit]
                break
        else:
            raise DamagedError(
                f"The samples in the encyclopedia of {source} are not those recorded in {source / 'commits'}, so it "
                "can't be copied; run `encyclo verify` for details."
            )
    return ordered
