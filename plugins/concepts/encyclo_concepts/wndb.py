"""The files of a WordNet database, as wndb(5WN) describes them.

data.noun …    one synset per line, at the byte offset that its first field names: words, pointers, gloss
index.noun …   each lemma's offsets: used here to check that no line of data.noun is missing
cntlist.rev    how often each sense occurs in WordNet's tagged texts, by sense key

Every line is checked, so the error for a truncated, changed or foreign file names the line.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.regular_files import read_bytes

PARTS_OF_SPEECH = {"noun": "noun", "verb": "verb", "adjective": "adj", "adverb": "adv"}
"""A part of speech and the ending of its files."""

LEXICOGRAPHER_FILES = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact",
    "noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling",
    "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object", "noun.person",
    "noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity", "noun.relation",
    "noun.shape", "noun.state", "noun.substance", "noun.time", "verb.body", "verb.change",
    "verb.cognition", "verb.communication", "verb.competition", "verb.consumption", "verb.contact",
    "verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession", "verb.social",
    "verb.stative", "verb.weather", "adj.ppl",
)  # fmt: skip
"""lexnames(5WN): a synset line holds the number of its lexicographer file."""

_SYNSET = re.compile(
    r"^(\d{8}) (\d\d) ([nvasr]) ([0-9a-f]{2}) ((?:_*[^ _\n][^ \n]* [0-9a-f] )+)"  # offset, file, kind, words
    r"(\d{3}) ((?:[^ \n]{1,2} \d{8} [nvasr] [0-9a-f]{4} )*)"  # pointers
    r"(?:\d\d (?:\+ \d\d [0-9a-f]{2} )*)?\| ([^\n]*)\n",  # a verb's sentence frames; the gloss
    re.ASCII | re.MULTILINE,
)
_WORD = re.compile(r"([^ ]+ [0-9a-f]) ")
_SENSE = re.compile(r"([^ \n]+)%([1-5]:\d\d):(\d\d):([^ :\n]*):(\d\d)? \d+ (\d{1,9})\r?\n", re.ASCII)
_HYPERNYM = re.compile(r"(?:^| )@i? (\d{8})", re.ASCII)
_SIMILAR = re.compile(r"(?:^| )& (\d{8})", re.ASCII)
_OFFSET = re.compile(r"(?<= )\d{8}(?= )", re.ASCII)
_VERSION = re.compile(r"WordNet (\d+(?:\.\d+)*) Copyright", re.ASCII)
_MARKER = re.compile(r"(?<=[^ ])\((?:a|p|ip)\)(?= [0-9a-f] )")
_KINDS = {"noun": "n", "verb": "v", "adjective": "as", "adverb": "r"}
_NUMBERS = {"n": "1:", "v": "2:", "a": "3:", "r": "4:", "s": "5:"}
"""The letter of a synset's kind, and the number that sense keys have for it; s is an adjective of a cluster."""
_LARGEST = 200 * 2**20
"""Bytes: ten times WordNet's largest file. A larger file is not WordNet's."""

_ADVICE = "give a complete WordNet database directory"

Row = tuple[str, str, str, str, str, str, str, str]
"""A synset line's offset, file, kind, count of words, words, count of pointers, pointers, gloss."""
Counts = dict[str, dict[str, int]]
"""Kind and lexicographer file as sense keys have them (1:05) -> lemma and number as data files have them (dog 0),
in a cluster followed by those of its head -> how often the sense occurs."""


@dataclass(slots=True)
class Synset:
    """One line of a data file: words and frequency; pointers and gloss are parsed on demand."""

    part_of_speech: str
    offset: int
    lexicographer_file: int
    words: tuple[str, ...]
    """Lemmas as WordNet writes them, without adjective markers: blanks are underscores."""
    tag_counts: tuple[int, ...]
    """How often each word occurs with this sense; empty if none does."""
    frequency: int
    """How often the sense occurs, with any of its words."""
    pointers: str
    gloss: str

    def hypernyms(self) -> list[int]:
        """Return the offsets of the synsets above (of an instance: its classes), in WordNet's order."""
        return [int(offset) for offset in _HYPERNYM.findall(self.pointers)]

    def heads(self) -> list[int]:
        """Return the offsets of the synsets that an adjective is similar to, in WordNet's order."""
        return [int(offset) for offset in _SIMILAR.findall(self.pointers)]

    def words_by_count(self) -> tuple[str, ...]:
        """Return the words, the most frequent first, equally frequent ones in WordNet's order."""
        if not self.tag_counts or len(self.words) == 1:
            return self.words
        places = sorted(range(len(self.words)), key=lambda place: -self.tag_counts[place])
        return tuple(self.words[place] for place in places)


@dataclass(frozen=True)
class Folder:
    """The place of a database: a directory, or a directory inside a zip file (as NLTK downloads it)."""

    place: Path | zipfile.Path

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises UsageError naming the file."""
        path = self.place / name
        if isinstance(path, Path):
            return read_bytes(path, at_most=_LARGEST, advice=_ADVICE, error=UsageError)
        try:
            with path.open("rb") as file:
                content: bytes = file.read(_LARGEST + 1)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise UsageError(f"{path} can't be read: {error}; {_ADVICE}.") from error
        if len(content) > _LARGEST:
            raise foreign(path, "it has more than 200 MB, ten times WordNet's largest file")
        return content


def open_folder(path: Path) -> Folder:
    """Return the database folder at `path`: itself, or the folder inside if it is a zip file.

    Raises UsageError if there is no data.noun.
    """
    if path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(f"The zip file {path} can't be read: {error}; {_ADVICE}.") from error
        names = [name for name in archive.namelist() if Path(name).name == "data.noun"]
        folder = Folder(zipfile.Path(archive, min(names).removesuffix("data.noun") if names else ""))
    else:
        folder = Folder(path)
    if not (folder.place / "data.noun").is_file():
        raise UsageError(
            f"{path} is not a WordNet database: it has no file data.noun; give the directory that has this file."
        )
    return folder


def read_synsets(folder: Folder, parts_of_speech: list[str]) -> tuple[str, list[Synset]]:
    """Return (WordNet's version or nothing, the synsets of these parts of speech in file order).

    Raises UsageError naming file and line for a file that does not belong to a complete WordNet 3 database.
    """
    counts = _read_counts(folder)
    version = ""
    synsets: list[Synset] = []
    for part in parts_of_speech:
        path = folder.place / f"data.{PARTS_OF_SPEECH[part]}"
        content = folder.read(path.name)
        found = _VERSION.search(content[:5000].decode("latin-1"))
        version = version or (found[1] if found else "")
        rows = _read_rows(path, content, _KINDS[part])
        _check_index(folder, part, {row[0] for row in rows})
        synsets += _synsets(rows, part, counts)
    if counts and not any(synset.frequency for synset in synsets):
        raise foreign(folder.place / "cntlist.rev", "it has no count for any sense of this database")
    return version, synsets


def first_senses(folder: Folder, part_of_speech: str) -> dict[str, int]:
    """Return each lemma's most frequent sense as its synset's offset: WordNet's index lists them by frequency.

    The index must have been checked (`read_synsets`).
    """
    text = folder.read(f"index.{PARTS_OF_SPEECH[part_of_speech]}").decode("latin-1")
    rows = (line.split() for line in text.splitlines() if line[:1] not in ("", " "))
    # lemma, part of speech, number of synsets, pointers ..., then as many offsets.
    return {row[0]: int(row[-int(row[2])]) for row in rows}


def _read_counts(folder: Folder) -> Counts:
    path = folder.place / "cntlist.rev"
    content = folder.read(path.name)
    text = _decoded(path, content)
    counts: Counts = {}
    end = 0
    while end < len(text):
        found = _SENSE.match(text, end)
        if found is None:
            what = "it should hold a sense key and two numbers"
            raise foreign(path, what, content, len(text[:end].encode()))
        lemma, kind, number, head, head_number, count = found.groups()
        sense = f"{lemma} {int(number):x}"
        if head:
            sense += f" {head} {int(head_number or 0):x}"
        counts.setdefault(kind, {})[sense] = int(count)
        end = found.end()
    return counts


def _read_rows(path: Path | zipfile.Path, content: bytes, kinds: str) -> list[Row]:
    """Return a data file's synset lines; check that each is a synset at the offset that it names."""
    text = _decoded(path, content)
    rows: list[Row] = _SYNSET.findall(text)
    licence = _after_licence(content)
    ends = np.flatnonzero(np.frombuffer(content, np.uint8)[licence:] == ord("\n")) + licence + 1
    starts = np.concatenate([[licence], ends])
    # If there are as many lines as synsets, each at its offset, every line is a synset. Otherwise find the first fault.
    if starts[-1] != len(content) or starts[:-1].tolist() != [int(row[0]) for row in rows]:
        raise _first_fault(path, content, starts, kinds)
    for row in rows:
        if row[2] not in kinds or row[4].count(" ") != 2 * int(row[3], 16) or _fault(row):
            raise _first_fault(path, content, starts, kinds)
    return rows


def _first_fault(
    path: Path | zipfile.Path, content: bytes, starts: NDArray[np.int64], kinds: str
) -> UsageError:
    """Return the error that names the first invalid line, and the reason."""
    for start, end in pairwise([*starts.tolist(), len(content)]):
        found = _SYNSET.fullmatch(content[start:end].decode("utf-8"))
        if found is None or found[3] not in kinds:
            return foreign(path, "it is not a synset as WordNet writes it", content, start)
        if int(found[1]) != start:
            return foreign(
                path, f"synset {found[1]} should be at that byte, but is at byte {start}", content, start
            )
        if fault := _fault(found.groups()):
            return foreign(path, fault, content, start)
    return foreign(path, "it contains no synset")


def _fault(row: tuple[str, ...]) -> str:
    """Return why a line that looks like a synset is invalid; an empty text if it is valid."""
    _, file, _, words, texts, pointers, targets, _ = row
    if texts.count(" ") != 2 * int(words, 16) or targets.count(" ") != 4 * int(pointers):
        return "it has a wrong number of words or pointers"
    if int(file) >= len(LEXICOGRAPHER_FILES):
        return f"there is no lexicographer file {file}"
    return ""


def _decoded(path: Path | zipfile.Path, content: bytes) -> str:
    """Return a file's text. Raises UsageError naming the line that is not in UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise foreign(path, "it is not in UTF-8", content, error.start) from None


def _after_licence(content: bytes) -> int:
    """Return the offset of the first synset: the licence's lines before it begin with two blanks."""
    position = 0
    while content.startswith(b"  ", position):
        position = content.find(b"\n", position) + 1
        if not position:
            return len(content)
    return position


def _synsets(rows: list[Row], part: str, counts: Counts) -> list[Synset]:
    """Return the lines as synsets, with what `counts` says of them."""
    synsets: list[Synset] = []
    clusters: dict[int, str] = {}
    satellites: list[tuple[Synset, str, str]] = []
    for offset, file, kind, _, texts, _, pointers, gloss in rows:
        marked = texts.lower()
        if "(" in texts:
            texts = _MARKER.sub("", texts)
        synset = Synset(part, int(offset), int(file), tuple(texts.split(" ")[:-1:2]), (), 0, pointers, gloss)
        synsets.append(synset)
        if kind == "s":
            satellites.append((synset, texts, file))
            continue
        lower = texts.lower()
        senses = _WORD.findall(lower) if lower.count(" ") > 2 else [lower[:-1]]
        clusters[synset.offset] = f" {_WORD.findall(marked)[0]}"  # here sense keys keep the marker
        _count(synset, senses, counts.get(_NUMBERS[kind] + file))
    for synset, texts, file in satellites:
        head = next((clusters[offset] for offset in synset.heads() if offset in clusters), "")
        _count(synset, [sense + head for sense in _WORD.findall(texts.lower())], counts.get("5:" + file))
    return synsets


def _count(synset: Synset, senses: list[str], counts: dict[str, int] | None) -> None:
    """Fill in the synset's tag counts: those of its `senses`, one per word."""
    if counts:
        found = tuple([counts.get(sense, 0) for sense in senses])
        if frequency := sum(found):
            synset.tag_counts, synset.frequency = found, frequency


def _check_index(folder: Folder, part: str, offsets: set[str]) -> None:
    """Check that data file and index name the same synsets: nothing else shows that a line at the end is missing."""
    ending = PARTS_OF_SPEECH[part]
    named = set(_OFFSET.findall(folder.read(f"index.{ending}").decode("latin-1")))
    if lost := named - offsets:
        what = f"the synset {min(lost)}, which index.{ending} names, is missing"
        raise foreign(folder.place / f"data.{ending}", what)
    if lost := offsets - named:
        what = f"the synset {min(lost)} of data.{ending} is missing"
        raise foreign(folder.place / f"index.{ending}", what)


def foreign(path: Path | zipfile.Path, what: str, content: bytes = b"", position: int = 0) -> UsageError:
    """Return the error that says why a file does not belong to a complete WordNet database, and in which line."""
    line = f" line {content.count(10, 0, position) + 1}" if content else ""
    if content and content.find(b"\n", position) < 0:
        what = "the file ends in the middle of it"
    return UsageError(
        f"The WordNet file {path}{line} is damaged or of another kind: {what}; install WordNet's database again."
    )
