"""Reads parts and encyclopedias that are named arrays with attributes, in any format.

A format implements `Arrays`; `encyclo.schema` says which arrays there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import DamagedError, StoreError
from encyclo.regular_files import RESTORE
from encyclo.schema import (
    FORMAT,
    HIERARCHY,
    TEXT,
    Attributes,
    Book,
    Columns,
    ConceptTable,
    LateSignatures,
    Part,
)
from encyclo.storage.raw_arrays import Chunks, Flat
from encyclo.text import unstorable
from encyclo.token_parts import TOKEN_PART, TokenColumns


class Arrays(Protocol):
    """The arrays of one file or folder by path ("prompt", "samples/prompt"), checked before anything is read.

    It may raise OSError, and errors such as ValueError for invalid content: `explained` turns them into one sentence.
    """

    def attributes(self) -> Mapping[str, Any]:
        """Return the attributes at the root as texts, whole numbers and lists of whole numbers."""
        ...

    def numbers(self, path: str) -> NDArray[Any]:
        """Return a whole array."""
        ...

    # A format may also have `numbers_at(path, rows)`, some rows of an array; without it, the whole array is read.

    def texts(self, path: str, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return a column's texts: all, or those of rising rows."""
        ...

    def activations(self) -> Flat | Chunks:
        """Return where the samples' activations are."""
        ...

    def close(self) -> None:
        """Close what is open; reading again opens it again."""
        ...


OpenArrays = Callable[[Path, bool], Arrays]
"""Opens the arrays of a path (whether it is a part: bool); refuses anything that the schema does not allow."""


class StoredSamples:
    """Samples by row, from the arrays of one group."""

    brings_files = True
    """Activations are read by `raw_arrays`, which brings those that an object store still has (see `late_files`)."""

    def __init__(self, path: Path, arrays: Arrays, group: str) -> None:
        self.path = path
        self._arrays, self._group = arrays, group
        self._activations = arrays.activations()
        self._columns: Columns | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The activations' shape: n, L, H."""
        return self._activations.shape

    def columns(self) -> Columns:
        """Return every sample's small columns."""
        if self._columns is None:
            with explained("read", self.path):
                self._columns = Columns.read(lambda name: _read_column(self._arrays, self._group, name))
        return self._columns

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H], of rising rows."""
        with explained("read", self.path):
            return self._activations.read(rows, layers)

    def prompts(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return the prompts of rising rows (None: all)."""
        with explained("read", self.path):
            found: list[str] = _read_column(self._arrays, self._group, "prompt", rows)
        return found

    def samples(self, rows: slice | NDArray[np.int64]) -> Part:
        """Return whole samples by row; an array of rows must be ascending."""
        taken = np.arange(len(self.columns()))[rows]
        prompts = self.prompts(taken)
        return self.columns().samples(taken, self.activations(taken), prompts)

    def close(self) -> None:
        """Close what is open."""
        self._arrays.close()


class PartReader(StoredSamples):
    """A part; no file stays open. Raises StoreError if it is missing, DamagedError."""

    def __init__(self, path: Path, open_arrays: OpenArrays) -> None:
        _require(path, "write it again")
        with explained("read", path), closing(open_arrays(path, True)) as arrays:
            super().__init__(path, arrays, "")
            self.columns()

    def prompts(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return the prompts of rising rows (None: all)."""
        with closing(self._arrays):
            return super().prompts(rows)


class TokenReader:
    """A part of a capture of texts; no file stays open. Raises StoreError if it is missing, DamagedError."""

    def __init__(self, path: Path, open_arrays: OpenArrays) -> None:
        _require(path, "write it again", "capture")
        self.path, self._open_arrays = path, open_arrays
        with explained("read", path), closing(open_arrays(path, True)) as arrays:
            self.scale: NDArray[np.float32] = arrays.numbers("tokens/scale")
            self._activations = arrays.activations()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The activations' shape: n, L, H."""
        return self._activations.shape

    def activations(
        self, rows: NDArray[np.int64], layers: Sequence[int] | None = None
    ) -> NDArray[np.float16]:
        """Return activations as stored, float16 [k, len(layers), H], of rising rows."""
        with explained("read", self.path):
            return self._activations.read(rows, layers)

    def columns(self) -> TokenColumns:
        """Return all columns but the activations."""
        found: dict[str, Any] = {}
        with explained("read", self.path), closing(self._open_arrays(self.path, True)) as arrays:
            for group, table in TOKEN_PART.items():
                for name, array in table.items():
                    read = arrays.texts if array.dtype == TEXT else arrays.numbers
                    if name != "activations":
                        found[name] = read(f"{group}/{name}")
        return TokenColumns(**found)


class EncyclopediaReader(StoredSamples):
    """A finalised encyclopedia. Raises StoreError if there is none, DamagedError."""

    def __init__(self, path: Path, open_arrays: OpenArrays) -> None:
        _require(path, "finish the run")
        with explained("read", path):
            arrays = open_arrays(path, False)
            super().__init__(path, arrays, "samples")
            check_format(path, arrays.attributes())
            self.book = Book(
                _read_attributes(arrays.attributes()),
                _read_table(arrays, "concepts", ConceptTable),
                LateSignatures.of(arrays.numbers("signatures/count"), self._signatures),
            )

    def _signatures(self, name: str, rows: int | slice | None) -> NDArray[np.float32]:
        """Return an array of the signatures, or some of its rows."""
        some: Callable[[str, int | slice], NDArray[np.float32]] | None = getattr(
            self._arrays, "numbers_at", None
        )
        with explained("read", self.path):
            if rows is not None and some:
                return some(f"signatures/{name}", rows)
            whole: NDArray[np.float32] = self._arrays.numbers(f"signatures/{name}")
            return whole if rows is None else whole[rows]

    def owners(self) -> NDArray[np.int32]:
        """Return each sample's concept, a row of the concept table: int32 [n]."""
        return self.columns().concept


def check_format(path: Path, attributes: Mapping[str, Any]) -> None:
    """Raise DamagedError if the file is not an encyclopedia, or is one of another version."""
    if attributes.get("format") != FORMAT:
        raise DamagedError(
            f"{path} has the format {attributes.get('format')!r}, but this encyclo reads {FORMAT!r}; open it with the "
            "version that wrote it."
        )


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """Turn the system's errors, and errors about invalid content, into one sentence that names the file.

    `verb` is "read" or "write". Raises StoreError, or DamagedError for a file that is there and can't be read.
    """
    try:
        yield
    except OSError as error:
        kind = DamagedError if verb == "read" and path.exists() else StoreError
        raise kind(f"Can't {verb} {path}: {error}; check the disk and the permissions.") from error
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        if verb == "write":
            raise
        # Also what a library raises about a file's content, such as text that is not UTF-8.
        reason = " ".join(str(error.args[0] if error.args else repr(error)).split())
        raise DamagedError(
            f"{path} is damaged, or not written by this version of encyclo: {reason}; {RESTORE}."
        ) from error


def _require(path: Path, purpose: str, command: str = "run") -> None:
    if not path.exists():
        raise StoreError(f"There is no {path}; run the same `encyclo {command}` command again to {purpose}.")


def _read_column(arrays: Arrays, group: str, name: str, rows: NDArray[np.int64] | None = None) -> Any:
    """Return a column: an array (all of it), or a list of texts."""
    path = f"{group}/{name}" if group else name
    if HIERARCHY[group or "samples"][name].dtype != TEXT:
        return arrays.numbers(path)
    return arrays.texts(path, rows)


def _read_table(arrays: Arrays, group: str, table: type[Any]) -> Any:
    """Return a dataclass whose fields are the columns."""
    return table(**{f.name: _read_column(arrays, group, f.name) for f in dataclasses.fields(table)})


def _read_attributes(values: Mapping[str, Any]) -> Attributes:
    """Return the attributes at the root. Raises ValueError for one of another type."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Attributes):
        value: Any = values[field.name]
        expected: Any = {"int": int, "str": str}.get(str(field.type), list)
        if type(value) is not expected or (expected is list and not all(type(v) is int for v in value)):
            raise ValueError(f"its attribute {field.name!r} is {value!r:.80}")
        if isinstance(value, str) and (character := unstorable([value])):
            raise ValueError(f"its attribute {field.name!r} holds the character {character}")
        found[field.name] = tuple(value) if expected is list else value
    return Attributes(**found)
