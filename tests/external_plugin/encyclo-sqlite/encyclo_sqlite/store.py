"""Store `sqlite`: a part or an encyclopedia is one database, a row of `columns` holds one column.

Databases are written under a temporary name and put in place whole (`encyclo.storage.files`), never changed in place:
SQLite's own journal has nothing to do. Each column carries its sha256, so that a changed byte is noticed.
"""

import dataclasses
import hashlib
import json
import sqlite3
from contextlib import closing, contextmanager

import numpy as np

from encyclo import hookimpl
from encyclo.errors import DamagedError, StoreError
from encyclo.schema import FORMAT, Attributes, Book, ConceptTable, Part, SignatureTable
from encyclo.storage import files

FILE = "samples.sqlite"  # any name that isn't the run's own
TABLE = "CREATE TABLE columns (name TEXT PRIMARY KEY, kind TEXT, shape TEXT, sha256 TEXT, data BLOB) STRICT"
TYPES = ("<f2", "<f4", "<i4", "|i1", "|b1")


@hookimpl
def store_activations(location, schema):
    """Return the store of the run directory `location`."""
    return SqliteStore(location, schema)


class SqliteStore:
    """The store of one run directory."""

    def __init__(self, location, schema):
        self.location, self.schema = location, schema

    def write_part(self, name, part):
        """Write parts/NAME.sqlite whole and durably."""
        write(self._part(name), columns_of("", part))

    def read_part(self, name):
        """Read parts/NAME.sqlite."""
        return build(Part, "", read(self._part(name)))

    def finalise(self, parts, book):
        """Join the parts and the book into samples.sqlite, replacing an old one atomically."""
        samples = Part.join([self.read_part(name) for name in parts])
        columns = {"attributes": [json.dumps(dataclasses.asdict(book.attributes))]}
        for prefix, table in (
            ("samples/", samples),
            ("concepts/", book.concepts),
            ("signatures/", book.signatures),
        ):
            columns |= columns_of(prefix, table)
        write(self.location / FILE, columns)
        return self.location / FILE

    def open(self):
        """Open the encyclopedia."""
        return SqliteReader(self.location / FILE)

    def _part(self, name):
        return self.location / "parts" / f"{name}.sqlite"


class SqliteReader:
    """A finalised encyclopedia, held in memory."""

    def __init__(self, path):
        columns = read(path)
        with explained("read", path):
            values = json.loads(columns["attributes"][0])
            if values["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            attributes = Attributes(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
            table = build(ConceptTable, "concepts/", columns)
            self.book = Book(attributes, table, build(SignatureTable, "signatures/", columns))
            self._samples = build(Part, "samples/", columns)

    def owners(self):
        """Return each sample's concept."""
        return self._samples.concept

    def samples(self, rows):
        """Return samples by row."""
        return self._samples.take(np.arange(len(self._samples))[rows])

    def close(self):
        """Do nothing: the database was read whole."""


def columns_of(prefix, table):
    """Return a table's columns by name."""
    return {prefix + field.name: getattr(table, field.name) for field in dataclasses.fields(table)}


def build(kind, prefix, columns):
    """Return the table of the dataclass `kind` from its columns."""
    return kind(**{field.name: columns[prefix + field.name] for field in dataclasses.fields(kind)})


def write(path, columns):
    """Write a database whole and durably. Raises StoreError."""
    with explained("write", path), files.replacing(path) as temporary:
        with closing(sqlite3.connect(temporary)) as base, base:
            base.execute("PRAGMA journal_mode = OFF")
            base.execute("PRAGMA synchronous = OFF")  # encyclo.storage.files flushes the whole file
            base.execute(TABLE)
            for name, column in columns.items():
                if isinstance(column, list):
                    kind, shape, data = "text", [len(column)], json.dumps(column).encode()
                else:
                    little = np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<"), copy=False)
                    kind, shape, data = little.dtype.str, list(column.shape), little.tobytes()
                row = (name, kind, json.dumps(shape), digest(name, kind, json.dumps(shape), data), data)
                base.execute("INSERT INTO columns VALUES (?, ?, ?, ?, ?)", row)


def read(path):
    """Read a database's columns. Raises StoreError if there is none, DamagedError if it can't be trusted."""
    if not path.exists():
        raise StoreError(f"There is no {path}; run the same command again.")
    found = {}
    with (
        explained("read", path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base,
    ):
        for name, kind, shape, expected, data in base.execute("SELECT * FROM columns"):
            if digest(name, kind, shape, data) != expected:
                raise ValueError(f"the column {name!r:.60} is not what was written")
            if kind == "text":
                found[name] = json.loads(data)
            elif kind in TYPES:
                found[name] = np.frombuffer(data, kind).reshape(json.loads(shape)).copy()
            else:
                raise ValueError(f"the column {name!r:.60} has the type {kind!r:.20}")
    return found


def digest(name, kind, shape, data):
    """Return a column's sha256, over its name, type and shape too."""
    return hashlib.sha256("\n".join((name, kind, shape, "")).encode() + data).hexdigest()


@contextmanager
def explained(verb, path):
    """Turn SQLite's and the system's errors into one sentence that names the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        kind = StoreError if verb == "write" else DamagedError
        raise kind(f"Can't {verb} {path}: {error}.") from error
    except (sqlite3.Error, KeyError, ValueError, TypeError, AttributeError, UnicodeError) as error:
        raise DamagedError(f"{path} is damaged: {' '.join(str(error).split())}.") from error
    except OSError as error:
        raise StoreError(f"Can't {verb} {path}: {error.strerror or error}.") from error
