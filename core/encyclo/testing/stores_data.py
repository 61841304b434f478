"""What the store contract writes: parts, books and texts that a careless store would trip over."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from encyclo import codec
from encyclo.schema import NO_SPAN, Attributes, Book, ConceptTable, Part, Schema, SignatureTable

LAYERS, HIDDEN = (-2, -1), 16
SCHEMA = Schema(LAYERS, (3, 4), HIDDEN)
HOSTILE = (
    "../../x", "/", "/etc/passwd", "a/b", "..", ".", "\\", "NUL \0 inside", "\0", "tail \0", "x" * 10_000,
    "🐕‍🦺", "e\u0301", "مرحبا", "\u202eright to left", "CON", "aux.h5", "=1+1", "+1", "@x", "<script>alert(1)</script>",
    "", " ", "two\nlines\r\n\ttab", "Größe 数", "%s {0} $HOME", "'; DROP TABLE samples; --", "\x7f\x01", "\ufeffbom",
)  # fmt: skip
"""Names and prompts are data, never keys or paths: each of these must come back as it was."""
PLAIN = ("A dog.", "Größe 数 🐕", "two\nlines", " blanks ", "e\u0301 \u200d \u202e", "x" * 300)


def make_part(rows: int = 6, seed: int = 0, concepts: int = 3, texts: tuple[str, ...] = PLAIN) -> Part:
    """Return `rows` random samples: the same for the same arguments, others for another seed."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, len(LAYERS), HIDDEN)).astype(np.float32)
    values *= np.float32(10) ** generator.integers(-30, 30, (rows, len(LAYERS), 1)).astype(np.float32)
    activations, scale = codec.encode(values)
    return Part(
        activations=activations,
        scale=scale,
        concept=generator.integers(0, concepts, rows).astype(np.int32),
        stage=np.full(rows, seed % 4, np.int8),
        family=[f"family.größe.{(i + seed) % 4}" for i in range(rows)],
        prompt=[texts[(i + seed) % len(texts)] for i in range(rows)],
        span=np.array([(2, 5 + seed % 100), NO_SPAN] * rows, np.int32)[:rows].reshape(-1, 2),
    )


def make_book(model: str = "tiny", names: tuple[str, ...] = ("dog", "naïveté", "水")) -> Book:
    """Return the book of an encyclopedia of `names`."""
    count = len(names)
    generator = np.random.default_rng(len(model))
    confidence = generator.uniform(size=count).astype(np.float32)
    confidence[count // 2] = np.nan
    attributes = Attributes(
        model, "ab" * 32, LAYERS, SCHEMA.layer_index, "span", HIDDEN, 1, "run-1", "2025-01-01T00:00:00+00:00",
        "0.1.0", '{"seed": 0, "naïve": true}',
    )  # fmt: skip
    table = ConceptTable(
        id=[f"{name}#{index}" for index, name in enumerate(names)],
        name=list(names),
        definition=[names[(index + 1) % count] for index in range(count)],
        category=[names[(index + 2) % count] for index in range(count)],
        stage=np.arange(count, dtype=np.int32),
        n_samples=np.arange(count, dtype=np.int32) * 7,
        confidence=confidence,
        confidence_low=confidence - np.float32(0.1),
        confidence_high=confidence + np.float32(0.1),
        converged=np.arange(count) % 2 == 0,
        settled=np.arange(count) % 3 == 0,
    )
    shape = (count, len(LAYERS), HIDDEN)
    signatures = SignatureTable(
        generator.normal(size=shape).astype(np.float32),
        generator.uniform(size=shape).astype(np.float32),
        np.arange(count, dtype=np.int32),
    )
    return Book(attributes, table, signatures)


@dataclass(frozen=True)
class Content:
    """All that a finished encyclopedia holds."""

    book: Book
    samples: Part


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Name the fields in which two dataclasses differ: values, types of numbers, shapes; NaN equals NaN."""
    if dataclasses.is_dataclass(expected):
        return [
            line
            for field in dataclasses.fields(expected)
            for line in differences(
                getattr(found, field.name, None),
                getattr(expected, field.name),
                f"{where}.{field.name}".lstrip("."),
            )
        ]
    if isinstance(expected, np.ndarray):
        if not isinstance(found, np.ndarray) or (found.dtype, found.shape) != (
            expected.dtype,
            expected.shape,
        ):
            return [f"{where} is {_shape(found)}, not {_shape(expected)}"]
        same = np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")
        return [] if same else [f"{where} holds other values"]
    if isinstance(expected, list) and isinstance(found, list) and found != expected:
        wrong = [f"{f!r:.80} for {e!r:.80}" for f, e in zip(found, expected, strict=False) if f != e]
        return [f"{where}: {wrong[0] if wrong else f'{len(found)} texts, not {len(expected)}'}"]
    return (
        []
        if type(found) is type(expected) and found == expected
        else [f"{where} is {found!r:.80}, not {expected!r:.80}"]
    )


def _shape(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
