"""The types that the core and its plugins exchange: concepts, prompts, samples and handles.

Shapes use these letters: n samples, L captured layers, H hidden size, C concepts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from encyclo.seeds import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from encyclo.schema import Book, Columns, Part

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int32]

Bulk = Mapping[str, Sequence[tuple[int, int]]]
"""The byte ranges of activations: (offset, bytes) by the file's path, ascending, not overlapping."""

POOLINGS = ("span", "last", "mean", "mean-all")
RESIDUAL = "resid"
SITES = (RESIDUAL, "attn", "mlp")
"""Where layers are read: the residual stream after a block, or what attention or the MLP adds to it there."""


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that the encyclopedia has an entry for."""

    id: str
    name: str
    """Several concepts may share it. Brackets at its end, as in "bank (slope)", are for showing: prompts say "bank"."""
    definition: str = ""
    category: str = ""
    part_of_speech: str = "noun"
    broader: str | None = None
    """Id of a broader concept."""
    aliases: tuple[str, ...] = ()
    countable: bool | None = None
    """For nouns: whether it takes `a` and a plural. None if the source doesn't say."""
    examples: tuple[str, ...] = ()
    """Sentences by other authors that mention the concept, for evaluation only."""
    example_spans: tuple[tuple[int, int] | None, ...] = ()
    """The characters of the mention in each example; None, or no spans at all: where the name is found."""
    broader_name: str = ""
    """The broader concept's name, whether or not it has an entry in the same encyclopedia."""
    word_shares: tuple[float, ...] = ()
    """How much of the uses of the name, and of each alias in turn, mean this concept, from 0 to 1; empty if unknown."""
    held_out_aliases: tuple[str, ...] = ()
    """Further aliases, which only test the interpreter: no prompt may have them. The run fills this in for samplers."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text about one concept.

    concept: the concept's id
    span:    the character range `[start, end)` of its mention; None if the text does not name the concept
    family:  the template or generator that the text came from
    """

    concept: str
    text: str
    span: tuple[int, int] | None
    family: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Captured activations: one batch of the prompts handed to `capture_layers`.

    positions:   int64 [n], each sample's index in the prompts handed in
    activations: float32 [n, L, H]
    tokens:      the number of tokens in these prompts; tokens_computed: how many the model computed
    """

    positions: NDArray[np.int64]
    activations: Floats
    tokens: int
    tokens_computed: int


class Split(enum.IntEnum):
    """What a sample may be used for. A prompt family is in one split as a whole."""

    TRAIN = 0
    VALIDATION = 1
    CALIBRATION = 2
    TEST = 3


@dataclass(frozen=True)
class SampleSet:
    """Samples for interpreters and scorers: small columns in memory, activations read by row.

    concept: int32 [n], index into the run's concepts
    named:   bool [n], False if the prompt describes its concept without naming it
    family:  int32 [n], index into `families`
    split:   int8 [n], a `Split` value
    fetch:   rows (int64 [k]) -> float32 [k, L, H]
    """

    concept: Integers
    named: NDArray[np.bool_]
    family: Integers
    families: tuple[str, ...]
    split: NDArray[np.int8]
    layers: tuple[int, ...]
    fetch: Callable[[NDArray[np.int64]], Floats] = field(repr=False)

    def __len__(self) -> int:
        return len(self.concept)

    def rows(self, *splits: Split) -> NDArray[np.int64]:
        """Return the rows of `splits`, ascending."""
        import numpy as np

        return np.flatnonzero(np.isin(self.split, [int(s) for s in splits]))

    def named_rows(self, *splits: Split) -> NDArray[np.int64]:
        """Return the rows of `splits` whose prompt names its concept: confidences are about these."""
        rows = self.rows(*splits)
        return rows[self.named[rows]]

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """Return the activations of `rows`, float32 [len(rows), L, H], in that order."""
        return self.fetch(rows)


@dataclass(frozen=True)
class Signatures:
    """Each concept's mean over the samples that mention it.

    mean, variance: float32 [C, L, H] (zeros where count is 0); count: int32 [C]
    """

    mean: Floats
    variance: Floats
    count: Integers


@dataclass(frozen=True)
class Scores:
    """How far to trust each entry.

    confidence, low, high: float32 [C], the calibrated probability that the interpreter names the concept
    correctly from one new sample, and its 95% interval; NaN where the run could not measure it
    calibration: the `calibration` object of metrics.json
    calibrator: the `encyclo.statistics.confidence.Calibrator` that turns this interpreter's scores into
    confidences wherever it reads; None: the core fits one
    """

    confidence: Floats
    low: Floats
    high: Floats
    calibration: Mapping[str, Any]
    calibrator: Any = None


@runtime_checkable
class Interpreter(Protocol):
    """Names the concepts in activations."""

    concepts: list[str]
    """Concept ids, in the order of `read`'s columns."""

    def read(self, activations: Floats) -> Floats:
        """Score every concept: float32 [n, L, H] -> float32 [n, C]; a higher score is a better match."""
        ...

    def add_concepts(self, ids: Sequence[str], signatures: Floats) -> None:
        """Add concepts by their signatures, float32 [k, L, H], without training again."""
        ...

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json into the existing `folder`."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a generated text; its seed draws the rest.

    At temperature 0 the likeliest token comes next, with any seed. The text should contain one of the
    `required_words`: a model may raise their probability until it does.
    """

    text: str
    temperature: float
    seed: int
    required_words: tuple[str, ...] = ()


class Model(Protocol):
    """A language model. Its description is available at once; weights are loaded on first use.

    It may have `site`, where it reads the layers (without it RESIDUAL); `licence`, the terms of its weights, and
    `quantisation`, how they are quantised: texts that run.json records. It may have `model_sha256`, a hash of all that
    it computes with: weights, configuration and tokenizer. A run continues, and is read, only with the same hashes. It
    may free its weights (`CanRelease`). A model that can generate text is a `TextGenerator` as well; samplers must work
    without one.
    """

    name: str
    source: str
    """Where the weights come from, in words."""
    depth: int
    """The largest `hidden_states` index: 0 is the embedding, `depth` the output after the final norm."""
    hidden_size: int
    dtype: str
    device: str

    @property
    def weights_sha256(self) -> str:
        """A hash of the weight files."""
        ...

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[Floats]:
        """Return the hidden states of every token, one float32 [tokens, L, H] for each text."""
        ...

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the character range of each token of `forward`'s states; (0, 0) for special tokens."""
        ...


@runtime_checkable
class CanRelease(Protocol):
    """A model that can free its weights; optional."""

    def release(self) -> None:
        """Free the weights; they are loaded again when they are next needed."""
        ...


@runtime_checkable
class TextGenerator(Protocol):
    """A model that can generate text; optional.

    Its attribute `can_generate` may say that it can't after all: an encoder does not continue texts.
    """

    def generate(
        self, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None = None
    ) -> list[str]:
        """Return a continuation of `prefix` plus each opening's text, without prefix and opening.

        A continuation ends after the first match of the regular expression `stop`, at the model's end token, or
        after `max_new_tokens`. The same call gives the same texts; other openings in the call may change a text.
        """
        ...


@runtime_checkable
class ChatModel(Protocol):
    """A model with a chat template; optional."""

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return messages, each {"role": ..., "content": ...}, as one text with the template's special tokens.

        Raise `encyclo.errors.UsageError` if there is no template or it refuses the messages.
        """
        ...


class RowReader(Protocol):
    """Reads samples by row. Rows must be ascending; `layers` are indices into the schema's layers."""

    def columns(self) -> Columns:
        """Return every row's small columns."""
        ...

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored: float16 [k, len(layers), H]; None means all layers."""
        ...

    def samples(self, rows: NDArray[np.int64]) -> Part:
        """Return whole samples."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class Reader(Protocol):
    """A finalised encyclopedia, opened for reading.

    If it is a `RowReader` as well, it is read by row; if it has no `columns` and `activations`, its samples are
    held in memory.
    """

    book: Book

    def owners(self) -> Integers:
        """Return each sample's concept, int32 [n], as a row of the concept table."""
        ...

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return samples by row; an array of rows must be ascending."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Store(Protocol):
    """Writes and reads parts, which hold samples. Units, ids, commits and resuming are the core's.

    A part's files are parts/NAME, parts/NAME.* or files in a folder of such a name. The core compares their
    checksums before the store reads them, and removes parts that were never committed. A store may have three
    more methods:

        open_part(name) -> RowReader    reads a part by row, so that a large run need not fit in memory
        open_tokens(name) -> TokenReader    reads a part of `encyclo capture`, whose hierarchy is the schema's `part`
        bulk_ranges() -> Bulk           the activations' byte ranges, by the files' paths below the encyclopedia
                                        ("" for itself); opening then need not read these bytes

    A Bulk covers the bytes of activations and no others: the core compares these sample by sample when they are
    read, and all other bytes before anything is read.
    """

    def write_part(self, name: str, part: Any) -> Bulk | None:
        """Write one part, a `Part`; replace an old one. When this returns, the part must survive a power cut.

        A store may return the activations' byte ranges, by the files' paths below parts/.
        """
        ...

    def read_part(self, name: str) -> Part:
        """Read a part that `write_part` wrote."""
        ...

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join `parts`, in that order, and `book` into one encyclopedia; replace an old one atomically.

        Return its path: a file or folder directly in the run directory. Its name must not begin with a dot or be
        one that the run uses (`checksums.OWN_NAMES`).
        """
        ...

    def open(self) -> Reader:
        """Open the finalised encyclopedia."""
        ...


class Progress(Protocol):
    """Shows the progress of long work."""

    def stage(self, title: str) -> None:
        """Announce the step that begins."""
        ...

    def track(
        self, title: str, total: int, unit: str, rate: Callable[[], str] | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar while the block runs; the block gets a function that adds to the amount done.

        Beside it is the amount a second, or what `rate` returns.
        """
        ...


@dataclass
class Context:
    """What a plugin may use in addition to its arguments. Each plugin gets its own context, with its own options."""

    seed: int
    device: str
    options: BaseModel | None
    folder: Path
    """A folder in the run for the plugin's own files; the plugin creates it."""
    model: Model | None = None
    pooling: str = "span"
    site: str = RESIDUAL
    """Where layers are read: one of SITES. A model that `load_model` returns says so in its own `site`."""
    chat: Mapping[str, str | None] | None = None
    """The role and the system prompt of a run with --chat; `capture_layers` gets texts in the chat template then."""
    echo: bool = False
    """Whether states are read in the second copy of each text; `capture_layers` then gets texts that are doubled."""
    prompts_wanted: int = 10
    """The usual number of prompts per concept in a stage."""
    wanted: Mapping[str, int] | None = None
    """The number of prompts by concept id, if the run does not want the usual one. Call `prompts_for` instead."""
    capture: Callable[[Sequence[Prompt]], Floats] | None = field(default=None, repr=False)
    """For samplers of later stages: the run's capture, n prompts -> float32 [n, L, H], as `interpreter` reads."""
    all_concepts: Sequence[Concept] = field(default=(), repr=False)
    """For samplers of later stages: all concepts of the run, not only those to sample."""
    natural: SampleSet | None = None
    """For scorers: sentences by other authors that mention concepts and that training never saw; may be None."""
    judging: bool = False
    """For samplers: give prompts that only test the interpreter and never become samples."""
    interpreter: Interpreter | None = None
    scores: Scores | None = None
    signatures: Signatures | None = None
    progress: Progress | None = None

    def prompts_for(self, concept: str) -> int:
        """Return the number of prompts that the run wants of the concept with this id."""
        return self.prompts_wanted if self.wanted is None else self.wanted[concept]

    def random(self, stage: int, concept: str) -> Random:
        """Return a random generator that depends only on (run seed, stage, concept id)."""
        return Random(derive_seed(self.seed, stage, concept))
