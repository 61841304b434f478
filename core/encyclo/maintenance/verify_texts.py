"""`encyclo verify` of a capture of texts: its records, and every byte of its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encyclo.corpus.directory import (
    AGAIN,
    MANIFEST,
    committed_units,
    read_manifest,
    read_record,
    redo,
    units_of,
)
from encyclo.corpus.text_capture import TextCapture
from encyclo.errors import EncycloError, without_advice
from encyclo.maintenance.file_checks import leftovers
from encyclo.maintenance.findings import LEFTOVER, NO_COMMIT, PRUNE, Problem, Report
from encyclo.storage import files
from encyclo.storage.ledger import Ledger, locked
from encyclo.storage.ledger import read_record as read_commit
from encyclo.storage.safe_read import TEXTS_RECORD
from encyclo.token_parts import TokenPart

ANEW = "capture the texts again into a new --out"
SWEEP = "the same `encyclo capture` command removes it, and nothing reads it"


def verify_texts(path: Path, prune: bool = False) -> Report:
    """Check a capture of texts. With `prune`, parts that no commit names and temporary files are removed first."""
    if prune:
        with locked(path):
            Ledger(path).sweep()
    report = Report(finished=(path / MANIFEST).exists(), kind="capture of texts")
    if not _records_whole(path, report):
        return report
    with TextCapture(path) as capture:
        report.units, report.samples = len(capture.units), len(capture)
        for index, (unit, _, _) in enumerate(capture.units):
            try:
                problem = part_problem(capture.part(index))
            except EncycloError as error:
                problem = without_advice(error)
            if problem:
                report.findings.append(Problem(f"part {unit}", problem, redo(unit)))
    report.findings += [Problem(name, LEFTOVER, SWEEP) for name in leftovers(path)]
    report.findings += [
        Problem(f"parts/{name}", f"{NO_COMMIT}: {LEFTOVER}", PRUNE.format(run=path))
        for name in Ledger(path).orphans()
    ]
    return report


def _records_whole(path: Path, report: Report) -> bool:
    """Note what is wrong with the JSON records; return whether nothing is."""
    try:
        read_record(path)
    except EncycloError as error:
        report.findings.append(Problem(TEXTS_RECORD, without_advice(error), ANEW))
    for record in sorted((path / "commits").glob("*.json")):
        if record.name.startswith(files.TEMPORARY):
            continue
        try:
            read_commit(record)
        except EncycloError as error:
            report.findings.append(
                Problem(f"commits/{record.name}", without_advice(error), redo(record.stem))
            )
    if report.findings:
        return False
    try:
        units = units_of(path, read_manifest(path))
    except EncycloError as error:
        report.findings.append(Problem(MANIFEST, without_advice(error), f"delete it and {AGAIN}"))
        return False
    strangers = committed_units(path) - {unit for unit, _, _ in units}
    report.findings += [
        Problem(f"commits/{name}.json", f"{MANIFEST} does not list it", "delete it")
        for name in sorted(strangers)
    ]
    return True


def part_problem(part: TokenPart) -> str | None:
    """Return what is wrong with a part's tokens or texts, which are as they were committed; None if nothing is."""
    if not np.isfinite(part.activations).all() or not np.isfinite(part.scale).all():
        return "it has a number that is not finite"
    if (np.frexp(part.scale)[0] != 0.5).any():
        return "it has a scale that is not a power of two"
    if not 0 <= part.text.min() <= part.text.max() < len(part.content):
        return "it has a token whose text is not in it"
    same = np.diff(part.text) == 0
    if (np.diff(part.text) < 0).any() or (np.diff(part.position)[same] <= 0).any():
        return "its tokens are not in the texts' order"
    lengths = np.array([len(content) for content in part.content])
    start, end = (part.span - part.start[part.text][:, None]).T
    if not ((start <= end) & (start >= 0) & (end <= lengths[part.text])).all():
        return "it has a token whose characters are outside its text"
    return None
