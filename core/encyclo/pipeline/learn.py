"""`encyclo learn`: fit how `encyclo read` reads a word, which entry or none of them, on a user's labelled sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import NONE, EntryWords
from encyclo.errors import UsageError
from encyclo.labelled_sentences import BACKGROUND, NOT_JUDGED, labelled_lines, mention
from encyclo.pipeline.reader import text_reader
from encyclo.query.word_readings import entries_at, word_spans
from encyclo.runs.calibration_file import ReadingModel, load_calibration, save_calibration
from encyclo.runs.interpreter_folder import FOLDER
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import finished_run
from encyclo.statistics.word_reader import WordReader
from encyclo.statistics.word_training import Mentions, fit
from encyclo.storage import run_files
from encyclo.storage.run_location import in_working_copy
from encyclo.types import Concept, Progress, Prompt

FLAG = "FILE"
FEWEST = 200
"""The fewest mentions of entries, and of other meanings, that a word reader is fitted on."""


@in_working_copy()
def learn(path: Path, file: Path, progress: Progress, device: str = "auto") -> WordReader:
    """Fit a reader of words on the labelled sentences in `file`; write it into the run's calibration.json.

    A later `encyclo evaluate` keeps it. Raises UsageError (or a subclass) if the run is not finished, can't be reopened
    or could not calibrate, or if the file can't be used.
    """
    with finished_run(path, progress, device) as run:
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
    """Read the mentions in the file and fit a reader of words on them.

    A line whose concept is empty, or not in the run, says that its words mean none of the entries. Raises UsageError,
    naming the file, for a line that can't be used and for too few mentions.
    """
    path = Path(os.path.expanduser(path))
    concepts, session = run.session.concepts, run.session
    prompts, meant, words = [], [], []
    known = EntryWords.of(concepts)
    for prompt in labelled_mentions(concepts, path):
        assert prompt.span is not None
        word = entries_at(prompt.text, [prompt.span[1]], known)[0]
        row = session.place_of.get(prompt.concept, NONE)
        # A phrase may hide the labelled word, and a mention need not be one of the entry's words.
        if word and (row == NONE or row in word):
            prompts.append(prompt)
            meant.append(row)
            words.append(word)
    entries = sum(row != NONE for row in meant)
    number = {name: place for place, name in enumerate(dict.fromkeys(prompt.family for prompt in prompts))}
    source = np.array([number[prompt.family] for prompt in prompts], np.int64)
    if min(entries, len(meant) - entries) < FEWEST or len(number) < 2:
        raise UsageError(
            f"{path} has {entries:,} mentions of entries by one of their words, {len(meant) - entries:,} of "
            f"such words with another meaning, and {len(number):,} sources; it needs at least {FEWEST} of both, and 2 "
            "sources: add lines, and fill in the column source."
        )
    session.progress.stage(f"Learning which entry a word means from {len(prompts):,} mentions in {path.name}")
    return fit(Mentions(_read(run, prompts), np.array(meant, np.int32), words, source), session.config.seed)


def _read(run: OpenRun, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Return each mention's activation, [n, L, H], read as `encyclo read` does in the text of its source."""
    schema = run.session.schema
    reader = text_reader(run, run.load_interpreter(run.path / FOLDER))
    values = np.zeros((len(prompts), len(schema.layers), schema.hidden_size), np.float32)
    with run.session.progress.track("Reading mentions", len(prompts), "mentions") as advance:
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
    found: dict[tuple[str, str, tuple[int, int]], Prompt] = {}
    for line, concept in labelled_lines(path, FLAG, concepts):
        span = mention(path, line, concept) if concept else line.span
        if span is None or line.concept == NOT_JUDGED or not (word := last_word(line.text, span)):
            continue
        key = (line.source, line.text, word)
        if concept or key not in found:
            found[key] = Prompt(concept.id if concept else BACKGROUND, line.text, word, line.source)
    yield from found.values()


def last_word(text: str, span: tuple[int, int]) -> tuple[int, int] | None:
    """Return the characters of the last word in `span`, as `read` reads it; None if it goes on after the span."""
    *_, last = [None, *(word for word in word_spans(text) if word[0] < span[1] and span[0] < word[1])]
    return last if last and last[1] <= span[1] else None
