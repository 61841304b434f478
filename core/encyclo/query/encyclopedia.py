"""Open a run, finished or not, and query it.

The samples of an unfinished run are read from its committed parts. It has no signatures, confidences and
interpreter yet; asking for them raises an error. Opening takes no lock and changes nothing. To see parts that the
run commits later, open it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encyclo.chat import Chat
from encyclo.entry_words import EntryWords
from encyclo.errors import DamagedError, UsageError
from encyclo.optional_packages import require
from encyclo.plugins.manager import Plugins
from encyclo.query.confusions import confusion_of
from encyclo.query.entry import Entry, Neighbour
from encyclo.query.evidence import recorded_readings
from encyclo.query.html import shown, table
from encyclo.query.lookup import EntryLookup
from encyclo.query.readings import Reading
from encyclo.query.run_samples import RunSamples
from encyclo.query.text_coverage import TOKENS, read_coverage
from encyclo.query.text_reader import TextReader, check_trained_for
from encyclo.runs.calibration_file import load_calibration
from encyclo.runs.details_file import KEPT, NEAREST, Confusion, StoredDetails, load_details
from encyclo.runs.directory import read_record
from encyclo.runs.reopen import (
    check_identity,
    not_finished,
    reopen_concepts,
    reopen_interpreter,
    reopen_model,
    reopen_store,
)
from encyclo.schema import Book, ConceptTable
from encyclo.statistics.figures import Coverage
from encyclo.statistics.similarity import Similarity, likeliest, nearest_to
from encyclo.storage import checksums
from encyclo.storage.finalise import open_finished
from encyclo.storage.ledger import Ledger
from encyclo.storage.run_location import fetched
from encyclo.storage.sample_rows import CommittedRows, Source
from encyclo.terminal import ConsoleProgress
from encyclo.text import named, one_line
from encyclo.types import RESIDUAL, Concept, Interpreter, Progress

if TYPE_CHECKING:
    import pandas

__all__ = ["Encyclopedia", "Entry", "Neighbour", "open_run"]

ROWS = 20
"""The number of entries that a notebook shows of an encyclopedia."""


class Encyclopedia(RunSamples):
    """A run, opened for reading; use it as a context manager.

    `len(book)` is the number of concepts, `book["otter"]` an entry (by name, id, word or alias; see
    `encyclo.query.lookup`), `"otter" in book` says whether there is one or several, and iterating over the book yields
    its entries.
    """

    def __init__(
        self,
        path: Path,
        record: dict[str, Any],
        source: Source,
        plugins: Plugins,
        concepts: Sequence[str],
        book: Book | None,
        seal: checksums.Seal | None = None,
        listed: Sequence[Concept] = (),
    ) -> None:
        """`listed` are the concepts themselves, of an unfinished run."""
        self.path, self.record, self._seal = path, record, seal
        self._plugins, self._book = plugins, book
        self.source, self.concepts = source, list(concepts)
        self._listed = listed
        self._readers: dict[tuple[str, str | None], TextReader] = {}
        self._interpreter: Interpreter | None = None
        self._asked_before = False
        """Whether neighbours that are not kept were looked up: then those of other entries probably will be."""

    @property
    def seal(self) -> checksums.Seal | None:
        """The seal of the finished run; None of an unfinished one."""
        return self._seal

    @property
    def finished(self) -> bool:
        """Whether the run is finished and so has signatures, confidences and an interpreter."""
        return self._book is not None

    @property
    def book(self) -> Book:
        """Attributes, concepts and signatures. Raises UsageError if the run isn't finished."""
        if self._book is None:
            raise not_finished(self.path)
        return self._book

    def __enter__(self) -> Encyclopedia:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.concepts)

    def __getitem__(self, name: str) -> Entry:
        return self.entry(name)

    def __contains__(self, name: object) -> bool:
        return (isinstance(name, str) and bool(self._lookup.rows(name))) or (
            isinstance(name, Entry) and name.book is self
        )

    def __iter__(self) -> Iterator[Entry]:
        # Of all entries at once: one by one they take longer.
        _ = self.book.signatures.mean
        return (self._entry(row) for row in range(len(self.book.concepts)))

    def __repr__(self) -> str:
        state = "" if self.finished else ", not finished"
        model, where = self.record["config"]["model"], named(str(self.path))
        return one_line(f"<Encyclopedia of {model}: {len(self):,} concepts{state}, {where}>")

    def _repr_html_(self) -> str:
        layers, model = ", ".join(map(str, self.layers)), self.record["config"]["model"]
        site = "" if self.site == RESIDUAL else f" (--site {self.site})"
        about = f"{len(self):,} concepts of {model} at layers {layers}{site}"
        if not self.finished:
            names = ", ".join(shown(name) for name in self.concepts[:ROWS])
            return f"<div><b>Encyclopedia, not finished</b>: {shown(about)}<br>{names}</div>"
        entries = self.book.concepts
        rows = [
            (entries.name[i], "not measured" if np.isnan(entries.confidence[i]) else f"{entries.confidence[i]:.0%}",
             f"{entries.n_samples[i]:,}", "yes" if entries.settled[i] else "no")
            for i in range(min(ROWS, len(entries)))
        ]  # fmt: skip
        rest = f"and {len(entries) - ROWS:,} more" if len(entries) > ROWS else ""
        heading = ("Concept", "Confidence", "Samples", "Settled")
        return f"<div><b>Encyclopedia</b>: {shown(about)}{table(rows, heading)}{rest}</div>"

    @property
    def layers(self) -> tuple[int, ...]:
        """The run's layers, as named in its configuration (-1 is the last)."""
        return tuple(self.record["config"]["layers"])

    @property
    def site(self) -> str:
        """Where the layers are read: resid, attn or mlp (--site)."""
        return str(self.record["config"].get("site", RESIDUAL))

    @property
    def echo(self) -> bool:
        """Whether the model got each text twice (--echo)."""
        return bool(self.record["config"].get("echo"))

    @property
    def chat(self) -> Chat | None:
        """How texts became messages (--chat); None if they didn't."""
        return Chat.of(self.record["config"])

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def index(self, name: str) -> int:
        """Return the row of a concept by name, id, word or alias.

        Raises UsageError that suggests the nearest names, or AmbiguousNameError that lists what the name may mean.
        """
        return self._lookup.row(name, str(self.path))

    @cached_property
    def _lookup(self) -> EntryLookup:
        if self._book is None:
            ids, definitions = [c.id for c in self._listed], [c.definition for c in self._listed]
        else:
            ids, definitions = self._book.concepts.id, self._book.concepts.definition
        return EntryLookup(ids, self.concepts, definitions, lambda: self._words)

    @cached_property
    def _words(self) -> EntryWords | None:
        """Return the entries' words; None if a finished run did not record them."""
        if self._book is None:
            return EntryWords.of(self._listed)
        return load_calibration(self.path, self._seal, len(self._book.concepts)).words

    def entry(self, name: str, neighbours: int = 8) -> Entry:
        """Return the entry of the concept `name` with at most `neighbours` neighbours. Raises as `index` does."""
        return self._entry(self.index(name), neighbours)

    def _entry(self, row: int, neighbours: int = 8) -> Entry:
        table = self.book.concepts
        return Entry(
            id=table.id[row],
            name=table.name[row],
            definition=table.definition[row],
            category=table.category[row],
            stage=int(table.stage[row]),
            n_samples=int(table.n_samples[row]),
            confidence=float(table.confidence[row]),
            low=float(table.confidence_low[row]),
            high=float(table.confidence_high[row]),
            converged=bool(table.converged[row]),
            settled=bool(table.settled[row]),
            signature=self.book.signatures.mean_of(row),
            layers=self.layers,
            row=row,
            book=self,
            neighbours=neighbours,
        )

    @cached_property
    def own_readings(self) -> NDArray[np.int64] | None:
        """Each entry's own held-out readings, int64 [C] in the book's order; None if the run recorded none."""
        if self.kept_details is None:
            return recorded_readings(self.path, self.source.columns, len(self))
        own = self.kept_details.own()
        return None if own is None or not own.any() else own

    @cached_property
    def kept_details(self) -> StoredDetails | None:
        """What the run's end measured of entries (details.json); None if it isn't there, or not of this run's end."""
        return None if self._book is None else load_details(self.path, self._seal, len(self.book.concepts))

    def nearest(self, row: int, count: int) -> list[Neighbour]:
        """Return at most `count` neighbours by the cosine of centred, scaled signatures, the nearest first."""
        kept = self.kept_details
        found = kept.nearest(row) if kept and count <= NEAREST else None
        if found is None and self._asked_before:
            found = self.similarity.nearest(np.array([row]), count)[row]
        elif found is None:  # of one entry: the directions of all would fill memory
            self._asked_before = True
            found = nearest_to(self.book.signatures, row, count, kept.centre_and_scale() if kept else None)
        return self._neighbours(found[: max(count, 0)])

    def search(
        self,
        vector: NDArray[np.floating],
        layer: int | None = None,
        count: int = 10,
        difference: bool = False,
    ) -> list[Neighbour]:
        """Return the `count` concepts whose signatures have the largest cosine with `vector`, the nearest first.

        `vector` is an activation: [L, H] at all the run's layers (cosines are averaged over them), or [H] at the
        layer `layer` (such as -6). It is centred and scaled like the signatures. With `difference`, it is the
        difference of two activations and is scaled only. Raises UsageError for another shape, a number that is
        not finite, or a zero vector.
        """
        place = None if layer is None else self._layer(layer)
        values = np.asarray(vector)
        hidden = self.similarity.centre.shape[1]
        expected = (len(self.layers), hidden) if place is None else (hidden,)
        if values.shape != expected or values.dtype.kind not in "fiu":
            where = "at all layers (or one, named with layer=)" if place is None else f"at layer {layer}"
            raise UsageError(
                f"search takes a vector of shape {expected} {where}, not {values.dtype} of shape {values.shape}."
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32)).all()
        if not finite or not values.any():
            raise UsageError(
                "search takes a vector of finite numbers that are not all 0; give another vector."
            )
        return self._neighbours(likeliest(self.similarity.cosines(values, place, difference), count))

    def _neighbours(self, found: Sequence[tuple[int, float]]) -> list[Neighbour]:
        return [Neighbour(self.book.concepts.name[row], cosine) for row, cosine in found]

    @cached_property
    def similarity(self) -> Similarity:
        """Every signature's direction, computed on first use."""
        return Similarity.of(self.book.signatures)

    def read(
        self, text: str, top: int = 3, at_least: float = 0.5, device: str = "auto", any_word: bool = False
    ) -> Reading:
        """Return a reading of each token of `text`; the first call loads the run's model.

        A reading has the `top` likeliest concepts and abstains below the confidence `at_least`. An entry is read where
        one of its words ends; with `any_word` at every token, as the interpreter reads it. Raises UsageError
        for a blank text, DamagedError if the files of the interpreter or the calibration were changed.
        """
        return Reading(text, tuple(self.reader(device).read(text, top, at_least, any_word)))

    def coverage(self, text: str | Iterable[str], tokens: int = TOKENS, device: str = "auto") -> Coverage:
        """Return how much of the activations of a text's first `tokens` tokens the entries explain.

        `text` is a string or pieces of one. Of fewer than 50 tokens, the figures are None. Raises UsageError for a
        blank text, and what `reader` raises.
        """
        reader, seed = self.reader(device), int(self.record["config"]["seed"])
        return read_coverage(reader, [text], self.book.signatures, self.layers, seed, tokens=tokens)

    def reader(
        self, device: str = "auto", model: str | None = None, progress: Progress | None = None
    ) -> TextReader:
        """Return a reader of texts with the run's interpreter and model (or the one named `model`); it is cached.

        Raises UsageError if the run isn't finished, or, naming both, if the interpreter was trained for another model,
        other layers, another site, pooling, --echo or --chat, and DamagedError if the files of the interpreter or
        the calibration were changed.
        """
        if (device, model) not in self._readers:
            about = self.book.attributes
            interpreter = self.interpreter()
            quiet = ConsoleProgress(quiet=True)
            found = reopen_model(self.path, self.record, progress or quiet, device, model)
            check_trained_for(
                self.path,
                found,
                about.layers,
                about.pooling,
                self.echo,
                about.weights_sha256,
                self.chat,
                self.site,
            )
            check_identity(self.path, self.record, found)
            known = load_calibration(self.path, self._seal, len(self.book.concepts))
            names = dict(zip(self.book.concepts.id, self.book.concepts.name, strict=True))
            self._readers[device, model] = TextReader(
                interpreter,
                [names.get(id, id) for id in interpreter.concepts],
                found,
                about.layer_index,
                about.pooling,
                known.calibrator,
                known.words,
                self.echo,
                known.word_reader,
                self.chat,
            )
        return self._readers[device, model]

    def to_pandas(self) -> pandas.DataFrame:
        """Return the entries as a table without signatures, one row each, in the book's order.

        Confidences are NaN where the run could not measure them. Raises MissingDependencyError without pandas.
        """
        require("pandas", "to_pandas", "pandas")
        import pandas

        return pandas.DataFrame(entry_columns(self.book.concepts, self.own_readings))

    def confused_with(self, name: str, count: int = 5) -> list[tuple[str, float]]:
        """Return the concepts that the interpreter scores highest on the samples of `name`: (concept, mean margin).

        The margin is the score of `name` minus the other's, averaged over samples; a negative margin is a misreading.
        """
        return [(self.book.concepts.name[row], margin) for row, margin in self.confusion(name, count).margins]

    def confusion(self, name: str, count: int = KEPT) -> Confusion:
        """Return which other concepts, at most `count`, the interpreter reads in the samples of `name`."""
        row = self.index(name)
        found = self.kept_details.confusion(row) if self.kept_details and count == KEPT else None
        if found:
            return found
        return confusion_of(self.interpreter().read(self.samples(name).values()), row, count)

    def interpreter(self) -> Interpreter:
        """Return the run's interpreter, loaded on first use.

        Raises DamagedError if its files were changed or are another run's.
        """
        if self._interpreter is None:
            ids = self.book.concepts.id
            self._interpreter = reopen_interpreter(self.path, self.record, self._plugins, ids, self._seal)
        return self._interpreter


def open_run(path: Path | str) -> Encyclopedia:
    """Open the run in the directory or at the URL `path`, finished or not. Raises UsageError, DamagedError, StoreError.

    A finished encyclopedia is compared with its checksums first, except its activations, which are compared when
    they are read. Of an unfinished run, every committed part is compared.
    """
    path = fetched(path)
    record = read_record(path)
    plugins = Plugins()
    store = reopen_store(path, record, plugins)
    with plugins.blame(record["config"]["store"]):
        if (path / checksums.SEAL).exists():
            reader, rows = open_finished(store, path)
            check_owners(path, rows, len(reader.book.concepts))
            if reader.book.attributes.run_id != record["run_id"]:
                raise DamagedError(
                    f"The encyclopedia in {path} is another run's than run.json; run `encyclo verify` for details."
                )
            if list(reader.book.attributes.layers) != record["config"].get("layers"):
                raise DamagedError(
                    f"The layers in {path}/run.json are not the encyclopedia's; run `encyclo verify` for details."
                )
            names = reader.book.concepts.name
            return Encyclopedia(path, record, rows, plugins, names, reader.book, rows.seal)
        commits = [commit for commit in Ledger(path).ordered() if commit.rows]
        if not commits:
            raise UsageError(
                f"{path} has no samples yet; run the same `encyclo run` command again to continue."
            )
        source = CommittedRows(store, Ledger(path), commits)
    concepts = reopen_concepts(path, record, plugins)
    check_owners(path, source, len(concepts))
    names = [concept.name for concept in concepts]
    return Encyclopedia(path, record, source, plugins, names, None, None, concepts)


def check_owners(path: Path, source: Source, concepts: int) -> None:
    """Raise DamagedError if a sample's concept is not in the run."""
    owners = source.columns.concept
    if len(owners) and not 0 <= owners.min() <= owners.max() < concepts:
        raise DamagedError(
            f"{path} has samples of concepts that are not in it; run `encyclo verify` for details."
        )


def entry_columns(table: ConceptTable, own_readings: NDArray[np.int64] | None) -> dict[str, Any]:
    """Return the columns of the entries' table, as `to_pandas` and `encyclo export` have them.

    `own_readings`, int64 [C], is NaN in each row if the run recorded none.
    """
    columns = {field.name: getattr(table, field.name) for field in fields(table)}
    columns["own_readings"] = np.full(len(table.id), np.nan) if own_readings is None else own_readings
    return columns
