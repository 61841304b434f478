"""How much of a text's activations a finished run's entries explain, for `encyclo evaluate`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from encyclo.pipeline.natural_sentences import natural_prompts
from encyclo.pipeline.reader import text_reader
from encyclo.query.text_coverage import TOKENS, read_coverage
from encyclo.query.text_reader import read_pieces
from encyclo.runs.open_run import OpenRun
from encyclo.statistics.figures import Coverage
from encyclo.text import utf8
from encyclo.types import Interpreter, Signatures

SENTENCES = TOKENS // 8
"""The most of the run's sentences that are read instead of a text."""


def coverage(run: OpenRun, own: Interpreter, signatures: Signatures, text: Path | None) -> Coverage | None:
    """Measure coverage on the file `text`, else on the run's natural sentences; None if there are none.

    Raises UsageError if the file can't be read, is not UTF-8 or is blank.
    """
    session, seed = run.session, run.session.config.seed
    texts: list[str | Iterable[str]]
    if text is not None:
        texts, source = [read_pieces(text)], utf8(text.name)
    else:
        sentences = natural_prompts(session.concepts, seed, SENTENCES)
        texts, source = [prompt.text for prompt in sentences], "natural sentences"
    if not texts:
        return None
    session.progress.stage(f"Measuring how much of {source} the entries explain")
    return read_coverage(text_reader(run, own), texts, signatures, session.schema.layers, seed, source)
