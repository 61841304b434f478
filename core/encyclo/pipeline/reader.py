"""A reader of texts with the objects of an open run, for `encyclo learn` and the figures of `encyclo evaluate`."""

from __future__ import annotations

from encyclo.entry_words import EntryWords
from encyclo.query.text_reader import TextReader
from encyclo.runs.calibration_file import ReadingModel
from encyclo.runs.open_run import OpenRun
from encyclo.types import Interpreter


def text_reader(run: OpenRun, own: Interpreter, model: ReadingModel | None = None) -> TextReader:
    """Return the reader that `encyclo read` uses; without a calibrator its readings have no confidence."""
    session, model = run.session, model or ReadingModel()
    return TextReader(
        own,
        [concept.name for concept in session.concepts],
        session.model,
        session.schema.layer_index,
        session.config.pooling,
        model.calibrator,
        model.words or EntryWords.of(session.concepts),
        session.config.echo,
        model.word_reader,
        session.config.as_messages,
    )
