"""`encyclo learn`: fit how `encyclo read` reads a word, which entry or none of them, on a user's labelled sentences."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import NONE, EntryWords, NamedWord
from encyclo.errors import UsageError
from encyclo.labelled_sentences import BACKGROUND, Sentence, mention, read_lines, sentences_of
from encyclo.query.text_reader import TextReader
from encyclo.query.word_readings import entries_at, word_spans
from encyclo.runs.calibration_file import ReadingModel, load_calibration, save_calibration
from encyclo.runs.directory import read_record
from encyclo.runs.interpreter_folder import FOLDER
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import reopen_run, require_finished
from encyclo.statistics.word_reader import WordReader
from encyclo.statistics.word_training import Mentions, fit
from encyclo.storage import run_files
from encyclo.storage.ledger import locked
from encyclo.types import Concept, Progress, Prompt

FLAG = "FILE"
UNKNOWN = "?"
"""A line with this concept says nothing of what its words mean."""
FEWEST = 200
"""The fewest mentions of entries, and of other meanings, that a word reader is fitted on."""


def learn(path: Path, file: Path, progress: Progress, device: str = "auto") -> WordReader:
    """Fit a reader of words on the labelled sentences in `file`; write it into the run's calibration.json.

    A later `encyclo evaluate` keeps it. Raises UsageError (or a subclass) if the run is not finished, can't be reopened
    or could not calibrate, or if the file can't be used.
    """
    record = read_record(path)
    require_finished(path)
    run = reopen_run(path, record, progress, device)
    with locked(path):
        run_files.check_finished_record(path)  # before the work: it may be refused
        known = load_calibration(path)
        if known.calibrator is None:
            raise UsageError(
                f"{path} has no calibration.json, since nothing could be held out: `encyclo read` gives no confidence "
                "there, and learning needs one; make a run with more prompts."
            )
        reader = fit_word_reader(run, file)
        words = EntryWords.of(run.session.concepts)
        save_calibration(path, ReadingModel(known.calibrator, words, reader))
        run_files.settle(path)
    return reader


def fit_word_reader(run: OpenRun, path: Path) -> WordReader:
    """Capture the mentions in the file and fit a reader of words on them.

    A line whose concept is empty, or not in the run, says that its words mean none of the entries. Raises UsageError,
    naming the file, for a line that can't be used and for too few mentions.
    """
    path = Path(os.path.expanduser(path))
    concepts, session = run.session.concepts, run.session
    prompts = list(labelled_mentions(concepts, path))
    words = _named_words(prompts, EntryWords.of(concepts))
    meant = [session.place_of.get(prompt.concept, NONE) for prompt in prompts]
    # A phrase may hide the labelled word, and a mention need not be one of the entry's words.
    usable = [
        i
        for i, (row, word) in enumerate(zip(meant, words, strict=True))
        if word and (row == NONE or row in word)
    ]
    sources = {
        source: number for number, source in enumerate(dict.fromkeys(prompt.family for prompt in prompts))
    }
    entries = sum(meant[i] != NONE for i in usable)
    if min(entries, len(usable) - entries) < FEWEST or len({prompts[i].family for i in usable}) < 2:
        raise UsageError(
            f"{path} has {entries:,} mentions of entries by one of their words, {len(usable) - entries:,} of "
            f"such words with another meaning, and {len(sources):,} sources; it needs at least {FEWEST} of both, and 2 "
            "sources: add lines, and fill in the column source."
        )
    session.progress.stage(f"Learning which entry a word means from {len(usable):,} mentions in {path.name}")
    activations = _read(run, [prompts[i] for i in usable])
    found = Mentions(
        activations,
        np.array([meant[i] for i in usable], np.int32),
        [words[i] for i in usable],
        np.array([sources[prompts[i].family] for i in usable]),
    )
    return fit(found, session.config.seed)


def _read(run: OpenRun, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Return each mention's activation, [n, L, H], read as `encyclo read` does in the text of its source."""
    session, progress = run.session, run.session.progress
    reader = TextReader(
        run.load_interpreter(run.path / FOLDER),
        [concept.name for concept in session.concepts],
        session.model,
        session.schema.layer_index,
        session.config.pooling,
        calibrator=None,
        echo=session.config.echo,
    )
    values = np.zeros((len(prompts), len(session.schema.layers), session.schema.hidden_size), np.float32)
    with progress.track("Reading mentions", len(prompts), "mentions") as advance:
        for text, row_of in documents(prompts):
            for window in reader.windows_of(text):
                found = [(row_of.get(window.start + end), at) for at, (_, end) in enumerate(window.spans)]
                for row, at in found:
                    if row is not None:
                        values[row] = window.values[at]
                advance(sum(row is not None for row, _ in found))
    return values


def documents(prompts: Sequence[Prompt]) -> Iterator[tuple[str, dict[int, int]]]:
    """Yield each source's text, its sentences in the file's order, and the prompts' rows by where their words end."""
    sources: dict[str, dict[str, list[int]]] = {}
    for row, prompt in enumerate(prompts):
        sources.setdefault(prompt.family, {}).setdefault(prompt.text, []).append(row)
    for sentences in sources.values():
        start, row_of = 0, {}
        for sentence, rows in sentences.items():
            for row in rows:
                span = prompts[row].span
                assert span is not None
                row_of[start + span[1]] = row
            start += len(sentence) + 1
        yield " ".join(sentences), row_of


def labelled_mentions(concepts: Sequence[Concept], path: Path) -> Iterator[Prompt]:
    """Yield a prompt for the last word of each mention that the file labels, with the concept "" for none of them.

    They come in the file's order. If a word is labelled twice, an entry counts before "none".
    """
    lines = list(read_lines(path, FLAG))
    by_name: dict[str, list[Sentence]] = defaultdict(list)
    for line in lines:
        by_name[line.concept].append(line)
    owner = {
        line: concept for concept, own in sentences_of(concepts, concepts, path, by_name) for line in own
    }
    found: dict[tuple[str, str, tuple[int, int]], Prompt] = {}
    for line in lines:
        concept = owner.get(line)
        span = mention(path, line, concept) if concept else line.span
        if span is None or line.concept == UNKNOWN or not (word := last_word(line.text, span)):
            continue
        key = (line.source, line.text, word)
        if concept or key not in found:
            found[key] = Prompt(concept.id if concept else BACKGROUND, line.text, word, line.source)
    yield from found.values()


def last_word(text: str, span: tuple[int, int]) -> tuple[int, int] | None:
    """Return the characters of the last word in `span`, as `read` reads it; None if it goes on after the span."""
    *_, last = [None, *(word for word in word_spans(text) if word[0] < span[1] and span[0] < word[1])]
    return last if last and last[1] <= span[1] else None


def _named_words(prompts: Sequence[Prompt], words: EntryWords) -> list[NamedWord]:
    """Return the entries that each prompt's word may mean."""
    ends: dict[str, list[int]] = {}
    for prompt in prompts:
        assert prompt.span is not None
        ends.setdefault(prompt.text, []).append(prompt.span[1])
    found = {text: iter(entries_at(text, places, words)) for text, places in ends.items()}
    return [next(found[prompt.text]) for prompt in prompts]
