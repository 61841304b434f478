"""Data with a known answer: concepts, samples that carry a signal, and an interpreter of known accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from encyclo.types import Concept, SampleSet, Split

NAMES = (
    # name, part of speech, countable: short, long, in two words, hyphenated, with marks, with capitals
    ("dog", "noun", True), ("child", "noun", True), ("hour", "noun", True), ("university", "noun", True),
    ("water", "noun", False), ("democracy", "noun", True), ("ice cream", "noun", True),
    ("mother-in-law", "noun", True), ("café", "noun", True), ("naïveté", "noun", False),
    ("Paris", "noun", False), ("DNA", "noun", False), ("news", "noun", False), ("scissors", "noun", None),
    ("sheep", "noun", True), ("x", "noun", None), ("3D printer", "noun", True), ("men's room", "noun", True),
    ("run", "verb", None), ("try", "verb", None), ("stop", "verb", None), ("lie", "verb", None),
    ("give up", "verb", None), ("odd", "adjective", None), ("honest", "adjective", None),
    ("well-known", "adjective", None), ("Straße", "noun", None), ("日本", "noun", None),
)  # fmt: skip


def make_concept(number: int) -> Concept:
    """Return the planted concept `number`: names repeat after `len(NAMES)`, ids never."""
    name, part, countable = NAMES[number % len(NAMES)]
    return Concept(
        id=f"planted {number}",
        name=name,
        definition=f"thing {number} that was made up to check a plugin",
        category=("made up", "planted")[number % 2],
        part_of_speech=part,
        broader=f"planted {number % 7}" if number >= 7 else None,
        countable=countable,
        examples=(f"Nobody may train on this sentence about {name}, which is number {number}.",),
    )


class PlantedConcepts(Sequence[Concept]):
    """So many concepts, made when they are asked for; remembers the furthest that was."""

    def __init__(self, count: int) -> None:
        self.size, self.furthest = count, -1

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Concept: ...
    @overload
    def __getitem__(self, index: slice) -> list[Concept]: ...
    def __getitem__(self, index: int | slice) -> Concept | list[Concept]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        index %= self.size
        self.furthest = max(self.furthest, index)
        return make_concept(index)


@dataclass
class PlantedSamples:
    """Samples that carry their concept's direction, made by row when they are read.

    A sample is a common direction that dwarfs all else (as in language models), its concept's direction, its
    family's, and noise. Families 0 to 4 train, 5 validates, 6 calibrates, 7 and 8 test.
    """

    concepts: int = 30
    per_family: int = 1
    """Samples of each concept in each family."""
    layers: int = 3
    hidden: int = 24
    signal: float = 1.0
    seed: int = 0
    shuffled: bool = False
    """Give the samples the labels of other samples: nothing can be learnt."""
    rows_read: list[NDArray[np.int64]] = field(default_factory=list)
    """Every read, in order."""

    SPLITS = (Split.TRAIN,) * 5 + (Split.VALIDATION, Split.CALIBRATION, Split.TEST, Split.TEST)

    def ids(self) -> list[Concept]:
        """Return the concepts, in the order of the samples' labels."""
        return [Concept(f"c{number}", f"concept {number}") for number in range(self.concepts)]

    def make(self) -> SampleSet:
        """Return the samples; reading them is recorded in `rows_read`."""
        families = len(self.SPLITS)
        owner = np.tile(np.arange(self.concepts, dtype=np.int32), families * self.per_family)
        family = np.repeat(np.arange(families, dtype=np.int32), self.concepts * self.per_family)
        label = np.random.default_rng(self.seed + 1).permutation(owner) if self.shuffled else owner
        return SampleSet(
            concept=label.astype(np.int32),
            named=np.ones(len(owner), bool),
            family=family,
            families=tuple(f"planted.{number}" for number in range(families)),
            split=np.array([int(split) for split in self.SPLITS], np.int8)[family],
            layers=tuple(range(-self.layers, 0)),
            fetch=lambda rows: self._read(rows, owner, family),
        )

    def signatures(self, concepts: Sequence[int]) -> NDArray[np.float32]:
        """Return the concepts' true means: float32 [k, L, H]. Numbers from `self.concepts` on are new ones."""
        return self._common() + self._directions("concept", concepts) * np.float32(self.signal)

    def fresh(self, concepts: Sequence[int], seed: int) -> NDArray[np.float32]:
        """Return one sample of each of `concepts` from a family that nothing has seen."""
        noise = np.random.default_rng([self.seed, 3, seed]).normal(
            size=(len(concepts), self.layers, self.hidden)
        )
        return (self.signatures(concepts) + 0.25 * noise).astype(np.float32)

    def _read(
        self, rows: NDArray[np.int64], owner: NDArray[np.int32], family: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        rows = np.asarray(rows)
        self.rows_read.append(rows)
        base = self.signatures(range(self.concepts))
        frames = 0.3 * self._directions("family", range(len(self.SPLITS)))
        # Two tables whose lengths share no factor: a row's noise is its own, without a generator a row.
        # In place: what planting takes must stay small beside what is planted.
        values: NDArray[np.float32] = base[owner[rows]]
        values += frames.astype(np.float32)[family[rows]]
        for table in self._noise:
            values += table[rows % len(table)]
        return values

    @cached_property
    def _noise(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        generator = np.random.default_rng([self.seed, 2])
        shapes = [(length, self.layers, self.hidden) for length in (1021, 1019)]
        one, other = (generator.normal(0, 0.18, shape).astype(np.float32) for shape in shapes)
        return one, other

    def _common(self) -> NDArray[np.float32]:
        generator = np.random.default_rng([self.seed, 0])
        return (20 * generator.normal(size=(1, self.layers, self.hidden))).astype(np.float32)

    def _directions(self, what: str, numbers: Sequence[int]) -> NDArray[np.float32]:
        shape = (self.layers, self.hidden)
        drawn = [
            np.random.default_rng([self.seed, len(what), number, 1]).normal(size=shape) for number in numbers
        ]
        return np.array(drawn, np.float32).reshape(len(drawn), *shape)


@dataclass
class PlantedReader:
    """An interpreter that names concept c right with the probability `accuracy[c]`, decided by the sample.

    A sample is its own list of scores: float32 [1, C]. Scores are too sharp by the factor `temperature`;
    divided by it, their softmax is the probability of being right.
    """

    accuracy: NDArray[np.float64]
    temperature: float = 2.5

    def __post_init__(self) -> None:
        self.concepts = [f"c{number}" for number in range(len(self.accuracy))]

    def read(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples' scores: float32 [n, 1, C] -> float32 [n, C]."""
        return activations[:, 0, :]

    def add_concepts(self, ids: Sequence[str], signatures: NDArray[np.float32]) -> None:
        """Refuse: its concepts are planted. Raises NotImplementedError."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Refuse: there is nothing to keep. Raises NotImplementedError."""
        raise NotImplementedError

    def samples(self, each: int, seed: int = 0, splits: Sequence[Split] = tuple(Split)) -> SampleSet:
        """Return `each` samples of every concept in each of `splits`, one family a split."""
        count = len(self.accuracy)
        owner = np.tile(np.arange(count, dtype=np.int32), each * len(splits))
        place = np.repeat(np.arange(len(splits), dtype=np.int32), count * each)
        generator = np.random.default_rng([seed, count])
        right = generator.random(len(owner)) < self.accuracy[owner]
        named = np.where(right, owner, (owner + generator.integers(1, count, len(owner))) % count)
        chance = np.clip(self.accuracy[owner], 0.02, 0.98)
        top = self.temperature * np.log(chance / (1 - chance) * (count - 1))

        def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            scores = np.zeros((len(rows), 1, count), np.float32)
            scores[np.arange(len(rows)), 0, named[rows]] = top[rows]
            return scores

        return SampleSet(
            concept=owner,
            named=np.ones(len(owner), bool),
            family=place,
            families=tuple(f"planted.{split.name.lower()}" for split in splits),
            split=np.array([int(split) for split in splits], np.int8)[place],
            layers=(-1,),
            fetch=fetch,
        )


def watched(samples: SampleSet, log: list[NDArray[np.int64]]) -> SampleSet:
    """Return the samples; every read is noted in `log`."""

    def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        log.append(np.asarray(rows))
        return samples.fetch(rows)

    return SampleSet(**{**vars(samples), "fetch": fetch})
