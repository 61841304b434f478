"""What the core and its plugins hand each other: concepts, prompts, samples and the typed handles.

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
"""Where in files activations lie: (offset, bytes) by the file's path, rising and apart."""

POOLINGS = ("span", "last", "mean", "mean-all")


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that the encyclopedia has an entry for."""

    id: str
    name: str
    definition: str = ""
    category: str = ""
    part_of_speech: str = "noun"
    broader: str | None = None
    """Id of a broader concept."""
    aliases: tuple[str, ...] = ()
    countable: bool | None = None
    """For nouns: takes `a` and a plural. None where the source does not say."""
    examples: tuple[str, ...] = ()
    """Sentences by other authors that mention the concept: for evaluation only, never for training."""
    broader_name: str = ""
    """The broader concept's name, whether or not it has an entry in the same encyclopedia."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text about one concept.

    `concept` is the concept's id; `span` the character range `[start, end)` of its mention, or None where
    the text describes the concept without naming it; `family` the template or generator it came from.
    """

    concept: str
    text: str
    span: tuple[int, int] | None
    family: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Captured activations of some of the prompts that were handed to `capture_layers`.

    positions:   int64 [n], each sample's place in the prompts handed in
    activations: float32 [n, L, H]
    tokens:      tokens of these prompts; tokens_computed: tokens that went through the model for them
    """

    positions: NDArray[np.int64]
    activations: Floats
    tokens: int
    tokens_computed: int


class Split(enum.IntEnum):
    """What a sample may be used for. Whole prompt families go to one split."""

    TRAIN = 0
    VALIDATION = 1
    CALIBRATION = 2
    TEST = 3


@dataclass(frozen=True)
class SampleSet:
    """Samples as interpreters and scorers see them: small columns at hand, activations read by row.

    concept: int32 [n], index into the run's concepts
    named:   bool [n], False where the prompt only describes its concept
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
        """Return the row numbers (ascending) that belong to any of `splits`."""
        import numpy as np

        return np.flatnonzero(np.isin(self.split, [int(s) for s in splits]))

    def named_rows(self, *splits: Split) -> NDArray[np.int64]:
        """Return those of `rows(*splits)` whose prompt names its concept: what confidences are about."""
        rows = self.rows(*splits)
        return rows[self.named[rows]]

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """Return the activations of `rows`, float32 [len(rows), L, H], in that order."""
        return self.fetch(rows)


@dataclass(frozen=True)
class Signatures:
    """Each concept's mean over its samples that mention it.

    mean, variance: float32 [C, L, H] (zeros where count is 0); count: int32 [C]
    """

    mean: Floats
    variance: Floats
    count: Integers


@dataclass(frozen=True)
class Scores:
    """How far each entry can be trusted.

    confidence, low, high: float32 [C]: the calibrated probability that the interpreter names the concept
    right from one fresh sample, and its 95% interval; NaN where the run could not measure it.
    calibration: the `calibration` object of metrics.json.
    calibrator: an `encyclo.statistics.confidence.Calibrator`, by which everything that reads with this interpreter
    turns scores into confidences. None: the core fits one of its own.
    """

    confidence: Floats
    low: Floats
    high: Floats
    calibration: Mapping[str, Any]
    calibrator: Any = None


@runtime_checkable
class Interpreter(Protocol):
    """Reads activations, names concepts."""

    concepts: list[str]
    """Concept ids, in the order of `read`'s columns."""

    def read(self, activations: Floats) -> Floats:
        """Score every concept: float32 [n, L, H] -> float32 [n, C], a higher score is a better match."""
        ...

    def add_concepts(self, ids: Sequence[str], signatures: Floats) -> None:
        """Learn new concepts from their signatures, float32 [k, L, H], without training again."""
        ...

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json into `folder`, which exists."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """How a generated text begins; what comes next is drawn by its seed.

    At temperature 0 the likeliest token comes next, whatever the seed. The text should hold one of the
    `required_words`: a model may make them likelier until one of them stands in it.
    """

    text: str
    temperature: float
    seed: int
    required_words: tuple[str, ...] = ()


class Model(Protocol):
    """A language model, loaded on first use; reading its description loads no weights.

    One that knows the terms of its weights has them as `licence`, a text, which run.json records. One that can
    write text is a `TextGenerator` as well; samplers do without where it isn't.
    """

    name: str
    source: str
    """Which weights these are, in words."""
    depth: int
    """The largest `hidden_states` index: 0 is the embedding, `depth` the output after the final norm."""
    hidden_size: int
    dtype: str
    device: str

    @property
    def weights_sha256(self) -> str:
        """Hash of the weight files."""
        ...

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[Floats]:
        """Hidden states of each text at every token: one float32 [tokens, L, H] a text."""
        ...

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the character range of each token that `forward` gives states for; (0, 0) for special ones."""
        ...


@runtime_checkable
class TextGenerator(Protocol):
    """What a model has that can write text; a model need not be one."""

    def generate(
        self, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None = None
    ) -> list[str]:
        """Continue `prefix` followed by each opening's text; the continuations alone are returned.

        `stop` is a regular expression: a continuation ends at the end of its first match, at the model's own
        end, or after `max_new_tokens`. The same call gives the same texts; other openings beside one may change it.
        """
        ...


class RowReader(Protocol):
    """Samples that can be read by row; row numbers rise, `layers` are places in the schema's layers."""

    def columns(self) -> Columns:
        """Return every row's small columns."""
        ...

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored: float16 [k, len(layers), H], all layers if None."""
        ...

    def samples(self, rows: NDArray[np.int64]) -> Part:
        """Return whole samples."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class Reader(Protocol):
    """A finalised encyclopedia, opened for reading.

    One that is a `RowReader` as well is read by row; without `columns` and `activations` its samples are held in
    memory.
    """

    book: Book

    def owners(self) -> Integers:
        """Return each sample's concept: int32 [n], rows of the concept table."""
        ...

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return samples by row; an array of rows must rise."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Store(Protocol):
    """Keeps samples. The core owns units, ids, commits and resume; a store writes and reads parts.

    What a part keeps in files is named parts/NAME, parts/NAME.* or lies in a folder of such a name: the core
    compares these bytes before it lets the store read them, and removes what never committed. Two more methods
    are used where a store has them:

        open_part(name) -> RowReader    so that a large run is not read whole
        bulk_ranges() -> Bulk           where in the encyclopedia's files activations lie, by the files' paths below
                                        it, "" for itself; opening then need not read through them

    Bulk is the bytes of samples' activations and nothing else: the core compares them sample by sample when they
    are read, and all other bytes before anything is read.
    """

    def write_part(self, name: str, part: Part) -> Bulk | None:
        """Write one part whole; when this returns it survives a power cut. An old one is replaced.

        A store may return where in the part's files activations lie, by the files' paths below parts/.
        """
        ...

    def read_part(self, name: str) -> Part:
        """Read back a part that was written whole."""
        ...

    def finalise(self, parts: Sequence[str], book: Book) -> Path:
        """Join `parts`, in that order, and `book` into one encyclopedia; replace an old one atomically.

        Return its path: a file or folder directly in the run directory. It may have any name that doesn't begin
        with a dot and isn't that of something else there (`checksums.OWN_NAMES`).
        """
        ...

    def open(self) -> Reader:
        """Open the finalised encyclopedia."""
        ...


class Progress(Protocol):
    """Tells a person how far a piece of long work is."""

    def stage(self, title: str) -> None:
        """Say what begins now."""
        ...

    def track(self, title: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar while the block runs; the function that the block is given adds to it."""
        ...


@dataclass
class Context:
    """What a plugin may use besides its arguments. Every plugin gets its own, with its own options."""

    seed: int
    device: str
    options: BaseModel | None
    folder: Path
    """A folder in the run for what the plugin wants to keep; made by whoever writes first."""
    model: Model | None = None
    pooling: str = "span"
    prompts_wanted: int = 10
    """Prompts a concept that a stage usually asks for."""
    wanted: Mapping[str, int] | None = None
    """Where the run asks for other numbers: prompts by concept id. Ask `prompts_for`."""
    capture: Callable[[Sequence[Prompt]], Floats] | None = field(default=None, repr=False)
    """For samplers of later stages: the run's capture, n prompts -> float32 [n, L, H], ready for `interpreter`."""
    all_concepts: Sequence[Concept] = field(default=(), repr=False)
    """For samplers of later stages: the run's concepts, of which they are asked about some."""
    natural: SampleSet | None = None
    """For scorers: sentences by other authors that mention concepts, which training never saw; None without any."""
    judging: bool = False
    """A sampler is asked for prompts that only judge: never the ones that make samples."""
    interpreter: Interpreter | None = None
    scores: Scores | None = None
    signatures: Signatures | None = None
    progress: Progress | None = None

    def prompts_for(self, concept: str) -> int:
        """Return how many prompts the run wants of the concept with this id."""
        return self.prompts_wanted if self.wanted is None else self.wanted[concept]

    def random(self, stage: int, concept: str) -> Random:
        """Return a random generator that depends on (run seed, stage, concept id) and on nothing else."""
        return Random(derive_seed(self.seed, stage, concept))
