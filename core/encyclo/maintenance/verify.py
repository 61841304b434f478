"""Verify a run: check every checksum and invariant; each problem is one line and says how to recover.

run.json        its own checksum
commits/        each record's own checksum
parts/          each file's sha256; the samples' checksum, and that of each one's activations; shapes, ids, numbers
encyclopedia    each file's sha256 against the seal, each sample's activations; its samples are the committed ones;
                ids, counts, spans; signatures are the mean and variance of their samples; confidences; no
                non-finite value
other files     each file's sha256 against the seal: run.json, interpreter, calibration, figures, pages
rounds/         each record's own checksum, the run that it names, its interpreter
                and no temporary file that a killed process left
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from encyclo import crc
from encyclo.corpus.directory import is_capture
from encyclo.errors import EncycloError, EncycloWarning, without_advice
from encyclo.maintenance.file_checks import leftovers, round_faults, run_file_faults
from encyclo.maintenance.findings import LEFTOVER, NO_COMMIT, PRUNE, Problem, Report
from encyclo.maintenance.verify_texts import verify_texts
from encyclo.plugins.manager import Plugins
from encyclo.runs import worker_locks
from encyclo.runs.directory import read_record as read_run
from encyclo.runs.metrics import FILE as METRICS
from encyclo.runs.reopen import reopen_store
from encyclo.schema import Book, Part
from encyclo.statistics.signatures import estimate_signatures
from encyclo.storage import checksums, files, run_files
from encyclo.storage.finalise import open_finished
from encyclo.storage.ledger import Commit, Ledger, locked, read_committed, read_record, sums_of
from encyclo.storage.run_files import RECORD
from encyclo.storage.run_location import fetched, opened
from encyclo.storage.safe_read import parse_json
from encyclo.storage.sample_rows import FinishedRows, sample_set
from encyclo.storage.working_copy import PARTS
from encyclo.types import Signatures, Store

BLOCK = 2048
REDO = "delete {records} and run the same `encyclo run` command again to capture only that unit again"
JOIN_AGAIN = "the parts hold every sample: delete metrics.json and run the same `encyclo run` command to write it again"
NOTHING = "restore it from a copy, or start a new run with another --out"
AGAIN = {
    RECORD: NOTHING,
    "interpreter": "delete metrics.json and run the same `encyclo run` command to train it again from the samples",
    "metrics.json": "delete it and run the same `encyclo run` command again to write it again",
    "calibration.json": "delete it and run `encyclo evaluate` to write it again",
    "convergence.json": "run `encyclo converge` to write it again",
    "details.json": "run `encyclo report` to write it again",
    "report.html": "run `encyclo report` to write it again",
}
"""How to recover the files of a finished run."""
ROUNDS_AGAIN = "delete the folder rounds and run the same `encyclo run` command again: samples are kept"
UNSEALED = (
    "it is of encyclo's first version and doesn't list the run's files, so another run's would not be noticed"
)
SEAL_IT = "`encyclo verify {run} --seal` seals the files as they are, if nothing else is wrong"
SWEEP = "the same `encyclo run` command removes it, and nothing reads it"


def verify(run: Path, seal: bool = False, prune: bool = False) -> Report:
    """Check the run `run`, a directory or a URL. Raises RunDirectoryError if it is not a run.

    With `seal`, a run of encyclo's first version in which nothing is wrong is sealed as it is. With `prune`, parts that
    no commit names and temporary files are removed first. A capture of texts is checked by `verify_texts`.
    """
    if is_capture(Path(run)):
        return verify_texts(Path(run), prune)
    with warnings.catch_warnings(), opened(run, fresh=True) if seal or prune else nullcontext(run) as run:
        warnings.simplefilter("ignore", EncycloWarning)  # what they say is among the findings
        run = fetched(run, parts=True, fresh=True)
        if prune:
            read_run(run)
            with locked(run):
                worker_locks.clear(run)
                Ledger(run).sweep()
        return _verify(run, seal)


def _verify(run: Path, seal: bool) -> Report:
    report, plugins = Report(finished=(run / METRICS).exists()), Plugins()
    try:
        record = read_run(run)
        store = reopen_store(run, record, plugins)
    except EncycloError as error:
        if not (run / "run.json").exists():
            raise
        report.findings.append(Problem("run.json", without_advice(error), NOTHING))
        return report
    commits = _check_commits(run, report)
    records_whole = not report.findings
    for commit in commits:
        problem = _part_problem(store, Ledger(run), commit)
        if problem:
            report.findings.append(Problem(f"part {commit.part}", problem, _redo(report, commit.unit)))
    parts_whole = not report.findings
    report.units, report.samples = len(commits), sum(commit.rows for commit in commits)
    others = list(_file_problems(run)) if report.finished else []
    report.findings += others
    if all(problem.where != RECORD for problem in others):  # else encyclopedia and rounds are another run's
        if report.finished:
            recovery = JOIN_AGAIN if parts_whole else NOTHING
            for what in _encyclopedia_problems(run, record, store, commits if records_whole else []):
                report.findings.append(Problem("encyclopedia", what, recovery))
        for name, what in round_faults(run, record["run_id"]):
            report.findings.append(Problem(name, what, ROUNDS_AGAIN))
    report.findings += [Problem(name, LEFTOVER, SWEEP) for name in leftovers(run)]
    if records_whole:
        prune = PRUNE.format(run=run)
        report.findings += [
            Problem(f"{PARTS}/{name}", f"{NO_COMMIT}: {LEFTOVER}", prune) for name in Ledger(run).orphans()
        ]
    if seal and report.findings and all(problem.what == UNSEALED for problem in report.findings):
        with locked(run):
            run_files.seal_as_it_is(run, record["run_id"])
        report.findings.clear()
    return report


def _redo(report: Report, unit: str) -> str:
    """Return how to redo a unit; a finished run needs its metrics.json deleted too."""
    record = f"commits/{unit}.json"
    return REDO.format(records=f"metrics.json and {record}" if report.finished else record)


def _check_commits(run: Path, report: Report) -> list[Commit]:
    commits = []
    for path in sorted((run / "commits").glob("*.json")):
        if path.name.startswith(files.TEMPORARY):
            continue
        try:
            commits.append(read_record(path))
        except EncycloError as error:
            report.findings.append(
                Problem(f"commits/{path.name}", without_advice(error), _redo(report, path.stem))
            )
    return commits


def _part_problem(store: Store, ledger: Ledger, commit: Commit) -> str | None:
    """Return what is wrong with a committed part, None if nothing is."""
    if not commit.rows:
        return None  # a unit without samples has no part
    try:
        if commit.files:
            ledger.check_files(commit)
        part = read_committed(store, commit)
        if len(crc.differing(part.activations, sums_of(commit, part.activations.shape[1]))):
            return "its activations differ from the checksums of their rows"
    except EncycloError as error:
        return without_advice(error)
    if (part.stage != commit.stage).any():
        return f"it has samples of a stage other than {commit.stage}"
    return sample_problem(part)


def sample_problem(part: Part) -> str | None:
    """Return what is wrong with samples: a number that is not finite, a scale, a span; None if nothing."""
    lengths = {len(value) for value in vars(part).values()}
    if len(lengths) != 1:
        return f"its columns have different lengths: {sorted(lengths)}"
    if not np.isfinite(part.activations).all() or not np.isfinite(part.scale).all():
        return "it has a number that is not finite"
    if len(part) and (np.frexp(part.scale)[0] != 0.5).any():
        return "it has a scale that is not a power of two"
    if (part.concept < 0).any():
        return "it has a sample without a concept"
    start, end = part.span.T if len(part) else (np.empty(0), np.empty(0))
    none = (start == -1) & (end == -1)
    texts = np.array([len(text) for text in part.prompt])
    if not (none | ((start >= 0) & (start < end) & (end <= texts))).all():
        return "it has a span outside its prompt"
    return None


def _encyclopedia_problems(
    run: Path, record: dict[str, Any], store: Store, commits: Sequence[Commit]
) -> Iterator[str]:
    try:
        seal = checksums.read_seal(run)
        faults = list(checksums.seal_faults(run, seal))
        yield from faults
        if faults:
            return  # its content can't be trusted, and a library might hang on it
        reader, rows = open_finished(store, run)
    except EncycloError as error:
        yield without_advice(error)
        return
    try:
        yield from _book_problems(reader.book, record)
        yield from _rows_problems(rows, reader.book, seal, commits)
    except EncycloError as error:
        yield without_advice(error)
    finally:
        reader.close()


def _book_problems(book: Book, record: dict[str, Any]) -> Iterator[str]:
    table, attributes = book.concepts, book.attributes
    lengths = {name: len(column) for name, column in vars(table).items()}
    if len(set(lengths.values())) != 1:
        yield f"its concepts' columns have different lengths: {lengths}"
        return
    repeated = [name for name, count in Counter(table.id).items() if count > 1]
    if repeated:
        yield f"the concept id {repeated[0]!r} occurs {Counter(table.id)[repeated[0]]} times"
    if attributes.run_id != record.get("run_id") or _config_of(attributes.config) != record["config"]:
        yield "it belongs to another run, or its configuration differs from run.json"
    shape = (len(table), len(attributes.layers), attributes.hidden_size)
    for name in ("mean", "variance"):
        values = getattr(book.signatures, name)
        if values.shape != shape:
            yield f"its signatures' {name} has the shape {values.shape}, not {shape}"
        if not np.isfinite(values).all():
            yield f"its signatures' {name} has a number that is not finite"
    known = ~np.isnan(table.confidence)
    low, middle, high = (
        column[known] for column in (table.confidence_low, table.confidence, table.confidence_high)
    )
    if not ((low >= 0) & (low <= middle) & (middle <= high) & (high <= 1)).all():
        yield "it has a confidence outside its interval, or outside 0 to 1"


def _rows_problems(
    rows: FinishedRows, book: Book, seal: checksums.Seal, commits: Sequence[Commit]
) -> Iterator[str]:
    columns, count = rows.columns, len(book.concepts)
    committed = [sums_of(commit, seal.samples.crc.shape[1]) for commit in commits]
    if commits and _multiset(np.concatenate([seal.samples.crc[:0], *committed])) != _multiset(
        seal.samples.crc
    ):
        yield "its samples are not those that were committed"
    if len(columns) and not 0 <= columns.concept.min() <= columns.concept.max() < count:
        yield "it has a sample whose concept is not in its table"
        return
    if not np.array_equal(np.bincount(columns.concept, minlength=count), book.concepts.n_samples):
        yield "n_samples differs from the number of its samples"
    for start in range(0, len(columns), BLOCK):
        problem = sample_problem(rows.samples(np.arange(start, min(start + BLOCK, len(columns)))))
        if problem:
            yield f"in the samples from {start:,} on: {problem}"
    yield from _signature_problems(book, estimate_signatures(sample_set(rows, book.attributes.layers), count))


def _signature_problems(book: Book, expected: Signatures) -> Iterator[str]:
    if not np.array_equal(expected.count, book.signatures.count):
        yield "its signatures' counts differ from the numbers of samples that mention their concepts"
        return
    for name in ("mean", "variance"):
        ours, theirs = getattr(book.signatures, name), getattr(expected, name)
        room = 1e-4 * np.abs(theirs).max(axis=-1, keepdims=True, initial=0) + 1e-12
        wrong = np.flatnonzero((np.abs(ours - theirs) > room).any(axis=(1, 2)))
        if len(wrong):
            concept = book.concepts.name[wrong[0]]
            yield f"the signature of {concept!r} is not its samples' {name} ({len(wrong)} such concepts)"


def _file_problems(run: Path) -> Iterator[Problem]:
    """Yield what is wrong with a finished run's other files; nothing if its seal can't be read."""
    try:
        if (run / checksums.SEAL).exists() and checksums.read_seal(run).run_files is None:
            yield Problem(checksums.SEAL, UNSEALED, SEAL_IT.format(run=run))
        for name, what in run_file_faults(run):
            yield Problem(name, what, AGAIN[name.partition("/")[0]])
    except EncycloError:
        return


def _config_of(text: str) -> Any:
    """Return the configuration that the encyclopedia holds, None if it is no JSON."""
    try:
        return parse_json(text.encode("utf-8"))
    except ValueError:  # a text that is no UTF-8 raises one as well
        return None


def _multiset(sums: crc.Sums) -> list[int]:
    values: list[int] = np.sort(sums, axis=None).tolist()
    return values
