"""The mistakes that a store can make: see `encyclo.testing.faults.mistakes`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from encyclo.testing.faults.evil_plugins import (
    Spoil,
    always,
    attribute,
    attribute_of,
    field,
    field_of,
    junk,
    method,
    method_raising,
    raising,
)

NAN = float("nan")


def _bulk() -> dict[str, Any]:
    return {
        "a number": 5, "a list": [(0, 5)], "numbers": {"a": 5}, "single numbers": {"a": [5]}, "halves": {"a": [(0,)]},
        "floats": {"a": [(0.5, 2)]}, "texts": {"a": [("0", "2")]}, "negative": {"a": [(-1, 5)]},
        "falling": {"a": [(10, 5), (3, 2)]}, "of no file's name": {5: [(0, 5)]}, "NaN": {"a": [(NAN, 1)]},
    }  # fmt: skip


def _whole_parts(spoil: Spoil) -> Spoil:
    """Make a store without `open_part`, which is read part by part, and spoil its parts."""

    def changed(good: Any) -> Any:
        rest = {name: getattr(good, name) for name in ("write_part", "finalise", "open")}
        return SimpleNamespace(**rest, read_part=lambda name: spoil(good.read_part(name)))

    return changed


def _parts() -> dict[str, Spoil]:
    return {
        **junk(),
        "nothing": always(None),
        "wide activations": field_of("activations", lambda a: a.astype(np.float32)),
        "flat activations": field_of("activations", lambda a: a[:, 0]),
        "too few activations": field_of("activations", lambda a: a[1:]),
        "wide concepts": field_of("concept", lambda c: c.astype(np.int64)),
        "a list of scales": field_of("scale", lambda s: s.tolist()),
        "families that are numbers": field_of("family", lambda f: [5 for _ in f]),
        "no prompts": field_of("prompt", always(None)),
        "an exit": raising(SystemExit(0)),
    }


def of_a_store() -> dict[str, Spoil]:
    """Return the mistakes of a store while samples are collected and read back."""
    columns = {
        words: spoil for words, spoil in _parts().items() if "activations" not in words and "pro" not in words
    }
    halves: dict[str, Spoil] = {
        "nothing": always(None),
        "floats": lambda a: a.astype(np.float32),
        "a list": lambda a: a.tolist(),
        "too few rows": lambda a: a[1:] if len(a) else a[:, 1:],
        "too few layers": lambda a: a[:, 1:],
        "an error": raising(ValueError("can't read")),
    }
    return {
        **junk(),
        **{f"write_part returns ranges: {w}": method("write_part", always(v)) for w, v in _bulk().items()},
        "write_part returns ranges beyond the file": method("write_part", _longer),
        "write_part raises": attribute(write_part=method_raising(OSError("no room"))),
        "write_part exits": attribute(write_part=method_raising(SystemExit(0))),
        **{f"open_part returns {words}": method("open_part", spoil) for words, spoil in junk().items()},
        **{f"columns are {w}": method("open_part", method("columns", spoil)) for w, spoil in columns.items()},
        **{
            f"activations are {words}": method("open_part", method("activations", spoil))
            for words, spoil in halves.items()
        },
        **{f"read_part returns {words}": _whole_parts(spoil) for words, spoil in _parts().items()},
    }


def of_a_store_that_finishes() -> dict[str, Spoil]:
    """Return the mistakes of a store at the end of a run."""
    paths: dict[str, Spoil] = {
        "nothing": always(None), "a text": str, "a number": always(5), "no file": lambda path: path.parent / "gone.h5",
        "a file elsewhere": lambda path: path.parent / "plugins" / "book.h5",
        "a file of the run's": lambda path: path.parent / "run.json",
        "an error": raising(OSError("no room")), "an exit": raising(SystemExit(0)),
    }  # fmt: skip
    books: dict[str, Any] = {
        "a number": always(5),
        "without attributes": field_of("attributes", always(None)),
        "of a wrong configuration": field_of("attributes", field(config=5)),
        "of layers that are texts": field_of("attributes", field(layers=("-1",))),
        "of names that are numbers": field_of("concepts", field_of("name", lambda names: [5] * len(names))),
        "of too few ids": field_of("concepts", field_of("id", lambda ids: ids[1:])),
        "of wide counts": field_of("signatures", field_of("count", lambda c: c.astype(np.int64))),
        "of flat means": field_of("signatures", field_of("mean", lambda m: m[0])),
    }
    return {
        **{f"finalise returns {words}": method("finalise", spoil) for words, spoil in paths.items()},
        **{f"bulk_ranges are {w}": method("bulk_ranges", always(v)) for w, v in _bulk().items()},
        "bulk_ranges are beyond the file": method("bulk_ranges", _longer),
        **{f"open returns {words}": method("open", spoil) for words, spoil in junk().items()},
        **{
            f"the book is {words}": method("open", attribute_of("book", spoil))
            for words, spoil in books.items()
        },
        "samples are a number": method("open", method("samples", always(5))),
        "samples are fewer": method("open", method("samples", lambda part: part.take(np.arange(1)))),
        "close raises": method("open", attribute(close=method_raising(ValueError("stuck")))),
    }


def _longer(bulk: Any) -> Any:
    return {path: [(start, length + 10**6) for start, length in ranges] for path, ranges in bulk.items()}
