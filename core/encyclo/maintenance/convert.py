"""Copy a run from one store to another, bit for bit: every committed part, then the encyclopedia."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.plugins.manager import Plugins
from encyclo.runs.directory import check_usable, read_record
from encyclo.runs.metrics import FILE as METRICS
from encyclo.runs.reopen import reopen_store
from encyclo.schema import Book
from encyclo.storage import checksums, files, safe_read
from encyclo.storage.finalise import finalise, open_finished
from encyclo.storage.ledger import Commit, Ledger, Unit, locked, read_committed, sums_of

_REWRITTEN = {"run.json", "commits", "parts", METRICS, checksums.SEAL}


def convert(source: Path, store_name: str, out: Path) -> Path:
    """Write the run `source` into the new directory `out` with the store `store_name`; return `out`.

    Everything read is compared with its checksums. The copy's run.json names the new store, so the same command
    with `--store` and `--out` can continue the copy. Raises RunDirectoryError, DamagedError or StoreError.
    """
    record, plugins = read_record(source), Plugins()
    plugins.require("store_activations", store_name)
    check_usable(out)
    if (out / "run.json").exists():
        raise RunDirectoryError(f"--out {out} holds a run; choose an empty or a new directory.")
    before = reopen_store(source, record, plugins)
    was = record["config"]["store"]
    changed = {**record, "config": {**record["config"], "store": store_name}}
    loaded = plugins.load(store_name)
    named = dict(record.get("provenance", {}).get("plugins", {}))
    named.pop(was, None)
    named[store_name] = f"{loaded.package} {loaded.version}"
    changed["provenance"] = {**record.get("provenance", {}), "plugins": named}
    files.make_folder(out)
    with locked(out):
        files.write_json(out / "run.json", checksums.sealed(changed))
        ledger = Ledger(out)
        ledger.create()
        after = reopen_store(out, changed, plugins)
        commits = _ordered(source, Ledger(source).ordered())
        copied = []
        for commit in commits:
            if not commit.rows:  # a unit without samples has no part
                ledger.commit(commit)
                continue
            if commit.files:
                Ledger(source).check_files(commit)
            part = read_committed(before, commit)
            unit = Unit(commit.unit, commit.stage, ())
            copied.append(
                ledger.store(after, unit, part, commit.seconds, commit.tokens, commit.tokens_computed)
            )
        if not (source / checksums.SEAL).exists():
            return out
        reader, _ = open_finished(before, source)
        book = reader.book
        reader.close()
        config = {**_config_of(source, book), "store": store_name}
        attributes = dataclasses.replace(book.attributes, config=json.dumps(config, sort_keys=True))
        finalise(after, out, copied, dataclasses.replace(book, attributes=attributes))
        _copy_rest(source, out, checksums.read_seal(source).path)
    return out


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
    sums = checksums.read_seal(source).crc
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
                f"The encyclopedia in {source} does not hold the committed samples; run `encyclo verify` for details."
            )
    return ordered


def _copy_rest(source: Path, out: Path, encyclopedia: str) -> None:
    """Copy interpreter, report and plugins' folders; metrics.json, which marks the run as finished, last."""
    for path in sorted(source.iterdir()):
        if path.name in {*_REWRITTEN, encyclopedia} or path.name.startswith("."):
            continue
        if path.is_dir():
            with files.replacing_folder(out / path.name) as folder:
                safe_read.copy_tree(path, folder, within=source)
        else:
            with files.replacing(out / path.name) as temporary:
                safe_read.copy_tree(path, temporary, within=source)
    if (source / METRICS).exists():
        metrics = safe_read.read_text(source / METRICS, at_most=safe_read.METRICS_JSON, within=source)
        files.write_text(out / METRICS, metrics)
