"""The rungs `running_text` and `senses`: what `encyclo read` finds in a labelled text, beside baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encyclo import english
from encyclo.evaluation.labelled_text import LabelledText, LabelledWord
from encyclo.evaluation.word_answers import (
    ANY_WORD,
    INTERPRETER,
    NOT_READ,
    READ,
    SHARES,
    WordAnswers,
    read_text,
)
from encyclo.pipeline.reader import text_reader
from encyclo.runs.calibration_file import load_calibration
from encyclo.runs.metrics import Rung
from encyclo.runs.open_run import OpenRun
from encyclo.statistics.figures import RunningText, TextReaders, TextSource
from encyclo.statistics.running_text import Answers, Choice, reading_figures, sense_accuracies
from encyclo.types import Concept, Interpreter

AT_LEAST = 0.5


def running_text(run: OpenRun, own: Interpreter, text: LabelledText) -> tuple[RunningText, Rung] | None:
    """Return the rungs' figures; None if the run could not calibrate, for `encyclo read` then reads nothing.

    Reads the run's calibration.json, as `encyclo read` does. Raises DamagedError if it was changed.
    """
    session = run.session
    model = load_calibration(run.path, entries=len(session.concepts))
    if model.calibrator is None:
        return None
    reader = text_reader(run, own, model)
    labelled = [word for document in text.documents for word in document.words]
    session.progress.stage(f"Reading {len(labelled):,} words of running text")
    read: list[WordAnswers] = []
    for document in text.documents:
        places = {word.end: place for place, word in enumerate(document.words)}
        found = dict(read_text(reader, document.text, places))
        read += [found.get(place, NOT_READ) for place in range(len(document.words))]
    origin = np.repeat(np.arange(len(text.documents)), [len(d.words) for d in text.documents])
    judge = Judge(session.concepts, labelled, origin, session.config.seed)
    figures = RunningText(
        source=TextSource(file=text.file, sha256=text.sha256),
        documents=len(text.documents),
        words=len(labelled),
        at_least=AT_LEAST,
        by_word=judge.by_word(read),
        **dict(judge.by_sense(read)),
    )
    return figures, judge.senses(read, session.config.interpreter)


class Judge:
    """Judges what is read at the words of a labelled text.

    by sense    right: the word is marked with the entry. An entry's word stands where a word is marked with an entry,
                or with another concept and is an entry's word: another sense of it
    by word     right: the word is one of the entry's words. Such a word is a mention, and an entry's word stands there
    """

    def __init__(
        self,
        concepts: Sequence[Concept],
        words: Sequence[LabelledWord],
        document: NDArray[np.int64],
        seed: int,
    ) -> None:
        row_of = {concept.id: row for row, concept in enumerate(concepts)}
        self.document, self.seed = document, seed
        self.marked = [{row_of[id] for id in word.concepts if id in row_of} for word in words]
        names = EntryNames(concepts)
        self.named = [names.of(word.form) for word in words]
        self.stands = np.array(
            [
                bool(own or (word.concepts and named))
                for word, own, named in zip(words, self.marked, self.named, strict=True)
            ],
            bool,
        )

    def by_sense(self, read: Sequence[WordAnswers]) -> TextReaders:
        """Return the figures by sense."""
        return self._figures(read, self.marked, self.stands)

    def by_word(self, read: Sequence[WordAnswers]) -> TextReaders:
        """Return the figures by word."""
        return self._figures(read, self.named, np.array([bool(rows) for rows in self.named], bool))

    def senses(self, read: Sequence[WordAnswers], interpreter: str) -> Rung:
        """Return the accuracies of the rung `senses`; what `encyclo read` says stands under the interpreter's name."""
        choices = [
            Choice(found.entries, own, found.scores)
            for found, own in zip(read, self.marked, strict=True)
            if own
        ]
        accuracies = sense_accuracies(choices, (READ, INTERPRETER, SHARES), self.seed)
        found = {interpreter: accuracies.pop(READ)}
        return {**found, **accuracies} if any(found.values()) else None

    def _figures(
        self,
        read: Sequence[WordAnswers],
        right: Sequence[set[int]],
        stands: NDArray[np.bool_],
    ) -> TextReaders:
        figures = {}
        for name in (READ, ANY_WORD, SHARES):
            answers = [found.answers[name] for found in read]
            rows = np.array([row for row, _ in answers], np.int64)
            sure = np.array([confidence for _, confidence in answers], np.float64)
            arrays = Answers(rows, sure)
            figures[name] = reading_figures(arrays, right, stands, self.document, AT_LEAST, self.seed)
        own = figures.pop(READ)
        return TextReaders(mentions=own.n, read=own, baselines=figures)


class EntryNames:
    """A run's entries by the words of their names and aliases."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self.rows: dict[str, set[int]] = defaultdict(set)
        self.nouns = {row for row, concept in enumerate(concepts) if concept.part_of_speech == "noun"}
        for row, concept in enumerate(concepts):
            for name in (concept.name, *concept.aliases):
                self.rows[english.without_qualifier(name).lower()].add(row)

    def of(self, form: str) -> set[int]:
        """Return the rows of the entries with this word or phrase, in lower case; its last word may be inflected."""
        head, blank, last = form.rpartition(" ")
        found = {row for lemma in english.lemmas(last) for row in self.rows.get(head + blank + lemma, ())}
        return found - self.nouns if english.is_function_word(form) else found
