"""The files of a WordNet database, as wndb(5WN) describes them.

data.noun …    a synset a line, at the byte offset that its first field names: words, pointers, gloss
index.noun …   the offsets that each lemma stands at: here the check that no line of data.noun is missing
cntlist.rev    how often each sense was met in WordNet's tagged texts, by sense key

Every line is checked, so that a file that is truncated, changed or of another kind is named with the line.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from encyclo.errors import UsageError

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
    rb"(\d{8}) (\d\d) ([nvasr]) ([0-9a-f]{2}) ((?:_*[^ _\n][^ \n]* [0-9a-f] )+)"  # offset, file, kind, words
    rb"(\d{3}) ((?:[^ \n]{1,2} \d{8} [nvasr] [0-9a-f]{4} )*)"  # pointers
    rb"(?:\d\d (?:\+ \d\d [0-9a-f]{2} )*)?\| ([^\n]*)\n"  # a verb's sentence frames; the gloss
)
_WORD = re.compile(rb"([^ ]+ [0-9a-f]) ")
_SENSE = re.compile(rb"([^ \n]+)%([1-5]:\d\d):(\d\d):([^ :\n]*):(\d\d)? \d+ (\d{1,9})\r?\n")
_HYPERNYM = re.compile(rb"(?:^| )@i? (\d{8})")
_SIMILAR = re.compile(rb"(?:^| )& (\d{8})")
_OFFSET = re.compile(rb"(?<= )\d{8}(?= )")
_VERSION = re.compile(rb"WordNet (\d+(?:\.\d+)*) Copyright")
_MARKER = re.compile(rb"\((?:a|p|ip)\)(?= [0-9a-f]$)")
_KINDS = {"noun": b"n", "verb": b"v", "adjective": b"as", "adverb": b"r"}
_NUMBERS = {b"n": b"1:", b"v": b"2:", b"a": b"3:", b"r": b"4:", b"s": b"5:"}
"""The letter of a synset's kind, and the number that sense keys have for it; s is an adjective of a cluster."""
_LARGEST = 200 * 2**20
"""Bytes: ten times WordNet's largest file. What is larger is none of its files."""

Counts = dict[bytes, dict[bytes, int]]
"""Kind and lexicographer file as sense keys have them (1:05) -> lemma and number as data files have them (dog 0),
in a cluster followed by those of its head -> how often the sense was met."""


@dataclass(slots=True)
class Synset:
    """One line of a data file: words and frequency, and what is read when it is asked for."""

    part_of_speech: str
    offset: int
    lexicographer_file: int
    words: tuple[str, ...]
    """Lemmas as WordNet writes them, without adjective markers: blanks are underscores."""
    tag_counts: tuple[int, ...]
    """How often each word was met with this sense; empty where none was."""
    frequency: int
    """How often the sense was met, whichever word stood for it."""
    pointers: bytes
    gloss: bytes

    def hypernyms(self) -> list[int]:
        """Return the offsets of the synsets above (of an instance: its classes), in WordNet's order."""
        return [int(offset) for offset in _HYPERNYM.findall(self.pointers)]

    def words_by_count(self) -> tuple[str, ...]:
        """Return the words, the most frequent first, equally frequent ones in WordNet's order."""
        if not self.tag_counts or len(self.words) == 1:
            return self.words
        places = sorted(range(len(self.words)), key=lambda place: -self.tag_counts[place])
        return tuple(self.words[place] for place in places)


@dataclass(frozen=True)
class Folder:
    """Where a database lies: a directory, or a directory inside a zip file (as NLTK downloads it)."""

    place: Path | zipfile.Path

    def holds_database(self) -> bool:
        """Return whether WordNet's nouns lie here."""
        return (self.place / "data.noun").is_file()

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises UsageError naming the file."""
        path = self.place / name
        try:
            with path.open("rb") as file:
                content: bytes = file.read(_LARGEST + 1)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise UsageError(
                f"The WordNet file {path} can't be read: {error}; give a whole database directory."
            ) from error
        if len(content) > _LARGEST:
            raise foreign(path, "it has more than 200 MB, ten times WordNet's largest file")
        return content


def open_folder(path: Path) -> Folder:
    """Return the database folder at `path`: itself, or the folder inside if it is a zip file.

    Raises UsageError if it holds no data.noun.
    """
    if path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(f"The zip file {path} can't be read: {error}.") from error
        names = [name for name in archive.namelist() if Path(name).name == "data.noun"]
        folder = Folder(zipfile.Path(archive, min(names).removesuffix("data.noun") if names else ""))
    else:
        folder = Folder(path)
    if not folder.holds_database():
        raise UsageError(
            f"{path} holds no WordNet database: it has no file data.noun; give the directory that has one."
        )
    return folder


def read_synsets(folder: Folder, parts_of_speech: list[str]) -> tuple[str, list[Synset]]:
    """Return (WordNet's version or nothing, the synsets of these parts of speech in file order).

    Raises UsageError naming file and line for a file that is no part of a whole WordNet 3 database.
    """
    counts = _read_counts(folder)
    version, synsets = "", []
    for part in parts_of_speech:
        path = folder.place / f"data.{PARTS_OF_SPEECH[part]}"
        content = folder.read(path.name)
        found = _VERSION.search(content[:5000])
        version = version or (found[1].decode() if found else "")
        of_part = _read_data(path, content, part, counts)
        _check_index(folder, part, of_part)
        synsets += of_part
    if counts and not any(synset.frequency for synset in synsets):
        raise foreign(folder.place / "cntlist.rev", "it counts no sense of this database")
    return version, synsets


def _read_counts(folder: Folder) -> Counts:
    content = folder.read("cntlist.rev")
    counts: Counts = {}
    end = 0
    while end < len(content):
        found = _SENSE.match(content, end)
        if found is None:
            what = "it should hold a sense key and two numbers"
            raise foreign(folder.place / "cntlist.rev", what, content, end)
        lemma, kind, number, head, head_number, count = found.groups()
        sense = b"%s %x" % (lemma, int(number))
        if head:
            sense += b" %s %x" % (head, int(head_number or 0))
        counts.setdefault(kind, {})[sense] = int(count)
        end = found.end()
    return counts


def _read_data(path: Path | zipfile.Path, content: bytes, part: str, counts: Counts) -> list[Synset]:
    """Return a data file's synsets, with what `counts` says of them."""
    kinds = _KINDS[part]
    plain = content.isascii()
    synsets: list[Synset] = []
    clusters: dict[int, bytes] = {}
    satellites: list[tuple[Synset, list[bytes], bytes]] = []
    position = _after_licence(content)
    while position < len(content):
        found = _SYNSET.match(content, position)
        if found is None:
            raise foreign(path, f"it is no {part} as WordNet writes it", content, position)
        if fault := _fault(found, kinds, plain):
            raise foreign(path, fault, content, position)
        position = found.end()
        offset, file, kind, _, texts, _, pointers, gloss = found.groups()
        words = _WORD.findall(texts)
        if b"(" in texts:
            words = [_MARKER.sub(b"", word) for word in words]
        lemmas = tuple([word[:-2].decode() for word in words])
        synset = Synset(part, int(offset), int(file), lemmas, (), 0, pointers, gloss)
        synsets.append(synset)
        if kind == b"s":
            satellites.append((synset, words, file))
        else:
            clusters[synset.offset] = b" " + words[0].lower()
            _count(synset, words, counts.get(_NUMBERS[kind] + file))
    for synset, words, file in satellites:
        head = _head(synset, clusters)
        _count(synset, [word + head for word in words], counts.get(b"5:" + file))
    return synsets


def _fault(found: re.Match[bytes], kinds: bytes, plain: bool) -> str:
    """Return why a line that looks like a synset's can't be right; nothing where it is."""
    if found[3] not in kinds:
        return f"it is a synset of the kind {found[3].decode()!r}"
    if int(found[1]) != found.start():
        return f"synset {found[1].decode()} should stand at that byte, and stands at {found.start()}"
    if found[5].count(b" ") != 2 * int(found[4], 16) or found[7].count(b" ") != 4 * int(found[6]):
        return "it has more or fewer words or pointers than it says"
    if int(found[2]) >= len(LEXICOGRAPHER_FILES):
        return f"there is no lexicographer file {int(found[2])}"
    if not plain:
        try:
            found[0].decode()
        except UnicodeDecodeError:
            return "it is not in UTF-8"
    return ""


def _after_licence(content: bytes) -> int:
    """Return where the first synset stands: the licence's lines begin with two blanks."""
    position = 0
    while content.startswith(b"  ", position):
        position = content.find(b"\n", position) + 1
        if not position:
            return len(content)
    return position


def _count(synset: Synset, senses: list[bytes], counts: dict[bytes, int] | None) -> None:
    """Fill in the synset's tag counts: those of its `senses`, one a word."""
    if counts:
        found = tuple([counts.get(sense.lower(), 0) for sense in senses])
        if frequency := sum(found):
            synset.tag_counts, synset.frequency = found, frequency


def _head(satellite: Synset, clusters: dict[int, bytes]) -> bytes:
    """Return the head of a satellite's cluster, as the end of its senses in `Counts`."""
    heads = map(int, _SIMILAR.findall(satellite.pointers))
    return next((clusters[offset] for offset in heads if offset in clusters), b"")


def _check_index(folder: Folder, part: str, synsets: list[Synset]) -> None:
    """Check that data file and index name the same synsets: a line lost at the end shows nowhere else."""
    ending = PARTS_OF_SPEECH[part]
    content = folder.read(f"index.{ending}")
    named = {int(offset) for offset in _OFFSET.findall(content)}
    there = {synset.offset for synset in synsets}
    if lost := named - there:
        what = f"the synset {min(lost):08d}, which index.{ending} names, is missing"
        raise foreign(folder.place / f"data.{ending}", what)
    if lost := there - named:
        what = f"the synset {min(lost):08d} of data.{ending} is missing"
        raise foreign(folder.place / f"index.{ending}", what)


def foreign(path: Path | zipfile.Path, what: str, content: bytes = b"", position: int = 0) -> UsageError:
    """Return the error that says why a file is none of a whole WordNet database's, and in which line."""
    line = f" line {content.count(10, 0, position) + 1}" if content else ""
    if content and content.find(b"\n", position) < 0:
        what = "the file ends in the middle of it"
    return UsageError(
        f"The WordNet file {path}{line} is not whole or of another kind: {what}; install WordNet's database again."
    )
