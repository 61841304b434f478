"""How sure `encyclo read` is of concepts without an entry, beside the interpreter alone, and what that costs.

`encyclo read` reads an entry only where one of its words ends (`encyclo.query.word_readings`), so the word of an absent
concept is read only if it is an entry's word too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import EntryWords
from encyclo.query.word_readings import entries_at, read_words
from encyclo.runs.open_run import OpenRun
from encyclo.statistics.confidence import Calibrator, best_scores
from encyclo.statistics.figures import Absent, Sureness
from encyclo.storage.ledger import Commit, read_committed
from encyclo.types import Interpreter, SampleSet


@dataclass(frozen=True)
class NamedSamples:
    """Samples with their prompts: activations [n, L, H], concepts [n], and the texts up to the mention's end."""

    activations: NDArray[np.float32]
    concept: NDArray[np.int32]
    upto: list[str]


def mentions(
    run: OpenRun, commits: Sequence[Commit], samples: SampleSet, rows: NDArray[np.int64]
) -> NamedSamples:
    """Return samples of the run by their rows, all of which mention their concept; one part in memory at a time."""
    upto = [""] * len(rows)
    start = 0
    for commit in commits:
        if not commit.rows:
            continue
        here = np.flatnonzero((rows >= start) & (rows < start + commit.rows))
        if len(here):
            part = read_committed(run.store, commit)
            for place in here.tolist():
                row = int(rows[place]) - start
                upto[place] = part.prompt[row][: int(part.span[row, 1])]
        start += commit.rows
    return NamedSamples(samples.read(rows), samples.concept[rows], upto)


def read_absent(
    interpreter: Interpreter,
    calibrator: Calibrator,
    words: EntryWords,
    absent: NamedSamples,
    known: NamedSamples,
) -> Absent | None:
    """Return the figures of samples of `absent` concepts, which `words` lacks too, and of `known` ones, or None."""
    if not (absent.upto and known.upto):
        return None
    alone, by_word, _ = _read(interpreter, calibrator, words, absent)
    sure, sure_by_word, right = _read(interpreter, calibrator, words, known)
    lost = (sure > 0.5) & right[:, 0] & ~((sure_by_word > 0.5) & right[:, 1])
    return Absent(
        read=sureness(by_word),
        interpreter_alone=sureness(alone),
        known_lost=float(lost.mean()),
        known=len(lost),
    )


def sureness(confidence: NDArray[np.float64]) -> Sureness:
    """Return the figures of one kind of reading from the confidences [n] in its first candidates."""
    return Sureness(
        median=float(np.median(confidence)), above_half=float((confidence > 0.5).mean()), n=len(confidence)
    )


def _read(
    interpreter: Interpreter, calibrator: Calibrator, words: EntryWords, given: NamedSamples
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidences of the interpreter alone and of `encyclo read`, [n] each, and who is right, [n, 2]."""
    scores = interpreter.read(given.activations)
    top, columns = best_scores(scores)
    alone = calibrator.confidences(top, calibrator.distribution.distance(given.activations))
    named = [entries_at(text, [len(text)], words)[0] for text in given.upto]
    ordered, by_word = read_words(scores, columns, named, calibrator.temperature)
    first = np.stack([columns[:, 0], ordered[:, 0]], axis=1)
    return alone[:, 0], by_word[:, 0], first == given.concept[:, None]
