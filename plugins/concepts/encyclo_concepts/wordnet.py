"""WordNet's synsets as concepts, the most frequent first.

Entries are senses: every synset is one, named by its most frequent lemma. Entries that share this lemma get a
qualifier: `bank (slope)`. Without the option `all_senses`, no two entries share a word: a synset is named by its most
frequent lemma that no more frequent one has, and left out if all are taken.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from encyclo import hookimpl
from encyclo.english import lemmas
from encyclo.errors import UsageError
from encyclo.types import Concept
from encyclo_concepts.gloss import split_gloss
from encyclo_concepts.wndb import (
    LEXICOGRAPHER_FILES,
    PARTS_OF_SPEECH,
    Folder,
    Synset,
    open_folder,
    read_synsets,
)

UNSEEN = 0.5
"""Occurrences added to each sense of a word."""
LICENCE = "WordNet License, Princeton University, https://wordnet.princeton.edu/license-and-commercial-use"
DEBIAN = Path("/usr/share/wordnet")
PRINCETON = Path("/usr/local/WordNet-3.0/dict")


class Options(BaseModel):
    """Options of the concept list `wordnet`."""

    model_config = ConfigDict(extra="forbid")

    path: Path | None = None
    """The database's directory, or NLTK's wordnet.zip; the default is the first usual place that has one."""
    part_of_speech: list[str] = Field(list(PARTS_OF_SPEECH), min_length=1)
    """Any of noun, verb, adjective, adverb: a list, or names separated by commas."""
    min_frequency: int = Field(0, ge=0)
    """Only synsets that occur at least this often in WordNet's tagged texts."""
    all_senses: bool = True
    """Every synset is an entry; otherwise a word names one entry, and synsets without a free word are left out."""

    @field_validator("part_of_speech", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("part_of_speech")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        if unknown := sorted(set(names) - set(PARTS_OF_SPEECH)):
            raise ValueError(
                f"there is no part of speech {', '.join(map(repr, unknown))}; choose from "
                f"{', '.join(PARTS_OF_SPEECH)}"
            )
        return [part for part in PARTS_OF_SPEECH if part in names]


@hookimpl
def load_concepts(options: Options) -> Iterator[Concept]:
    """Yield the synsets, the most frequent first, those of equal frequency by their place in WordNet.

    Raises UsageError if there is no database, or if a line is invalid (it names the file and the line).
    """
    with _no_garbage_collection():
        # All parts of speech: a noun's share of a word depends on its verbs.
        version, synsets = read_synsets(find_database(options.path), list(PARTS_OF_SPEECH))
        by_offset: Synsets = {part: {} for part in PARTS_OF_SPEECH}
        for synset in synsets:
            by_offset[synset.part_of_speech][synset.offset] = synset
        chosen = [
            synset
            for synset in synsets
            if synset.part_of_speech in options.part_of_speech and synset.frequency >= options.min_frequency
        ]
        order = list(PARTS_OF_SPEECH)
        chosen.sort(key=lambda s: (-s.frequency, s.offset, order.index(s.part_of_speech)))
        entries = _every_sense(chosen) if options.all_senses else _one_sense(chosen)
    return _concepts(f"wordnet-{version}" if version else "wordnet", entries, by_offset)


def find_database(path: Path | None) -> Folder:
    """Return the database at `path`, at WNSEARCHDIR or in the first usual place that has one.

    Raises UsageError saying how to get one.
    """
    if path is not None:
        return open_folder(Path(os.path.expanduser(path)))
    if asked := os.environ.get("WNSEARCHDIR"):
        return open_folder(Path(asked))
    for place in usual_places():
        if (place / "data.noun").is_file() or (place.is_file() and place.suffix == ".zip"):
            return open_folder(place)
    raise UsageError(
        "No WordNet database was found; install Debian's package wordnet-base, or NLTK's corpus with "
        "`python -m nltk.downloader wordnet`, or name a directory that has one: -o wordnet.path=DIR."
    )


def usual_places() -> Iterator[Path]:
    """Yield where WordNet's own installation, Debian's package and NLTK's downloader put the database."""
    if home := os.environ.get("WNHOME"):
        yield Path(home, "dict")
    yield from (DEBIAN, PRINCETON)
    folders = [Path(name) for name in os.environ.get("NLTK_DATA", "").split(os.pathsep) if name]
    folders.append(Path(os.path.expanduser("~/nltk_data")))
    folders += [Path(sys.prefix, *inner, "nltk_data") for inner in ((), ("share",), ("lib",))]
    folders += [Path(root, "nltk_data") for root in ("/usr/share", "/usr/local/share", "/usr/lib")]
    if data := os.environ.get("APPDATA"):
        folders.append(Path(data, "nltk_data"))
    for folder in folders:
        for name in ("wordnet", "wordnet.zip", "wordnet31", "wordnet31.zip"):
            yield folder / "corpora" / name


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turn garbage collection off: 100,000 synsets are made and all are kept, so it would waste a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(slots=True)
class _Entry:
    """A synset in the list; its name is empty until the entries that share its lemma are named."""

    synset: Synset
    lemma: str
    name: str = ""
    sharing: list[_Entry] | None = None
    """The entries with the same lemma, itself too; None if there is no other."""


Synsets = dict[str, dict[int, Synset]]
"""All synsets by part of speech and offset, whether or not the list has them."""


def _every_sense(synsets: list[Synset]) -> list[_Entry]:
    """Return every synset under its most frequent lemma.

    Lemmas are compared without regard to case, as WordNet looks them up.
    """
    by_lemma: dict[str, _Entry] = {}
    entries = []
    for synset in synsets:
        lemma = _best_name(synset)
        entry = _Entry(synset, lemma, lemma)
        entries.append(entry)
        first = by_lemma.setdefault(lemma.lower(), entry)
        if first is not entry:
            if not first.sharing:
                first.name, first.sharing = "", [first]
            first.sharing.append(entry)
            entry.name, entry.sharing = "", first.sharing
    return entries


def _one_sense(synsets: list[Synset]) -> list[_Entry]:
    """Return the synsets under their most frequent lemma that no synset before has; the others are left out."""
    taken: set[str] = set()
    entries: list[_Entry] = []
    for synset in synsets:
        for lemma in synset.words_by_count():
            if (key := lemma.lower()) not in taken:
                taken.add(key)
                entries.append(_Entry(synset, _spelt(lemma), _spelt(lemma)))
                break
    return entries


def _qualify(sharing: Sequence[_Entry], by_offset: Synsets) -> None:
    """Name the entries of one lemma by it and the broader concept (an adjective: what it is similar to), or it and
    the category, or, where those are taken, with a number."""
    taken: set[str] = set()
    for entry in sharing:
        synset = entry.synset
        known = by_offset[synset.part_of_speech]
        above = (*synset.hypernyms(), *synset.heads())
        qualifiers = [_best_name(known[offset]) for offset in above if offset in known]
        qualifiers = [text for text in qualifiers if text.lower() != entry.lemma.lower()]
        qualifiers.append(LEXICOGRAPHER_FILES[synset.lexicographer_file])
        numbered = (f"{qualifiers[0]} {number}" for number in count(2))
        chosen = next(text for text in chain(qualifiers, numbered) if text.lower() not in taken)
        taken.add(chosen.lower())
        entry.name = f"{entry.lemma} ({chosen})"


def _concepts(prefix: str, entries: list[_Entry], by_offset: Synsets) -> Iterator[Concept]:
    """Yield the entries as concepts; glosses are parsed and senses named on demand, so that a small --limit is fast."""
    listed: dict[str, set[int]] = {part: set() for part in PARTS_OF_SPEECH}
    for entry in entries:
        listed[entry.synset.part_of_speech].add(entry.synset.offset)
    uses = _uses(by_offset)
    for entry in entries:
        synset = entry.synset
        part = synset.part_of_speech
        aliases = _aliases(synset, entry.lemma)
        if not entry.name and entry.sharing:
            _qualify(entry.sharing, by_offset)
        above = next(iter(synset.hypernyms()), -1)
        broader = by_offset[part].get(above)
        definition, examples = split_gloss(synset.gloss)
        if definition == entry.lemma:  # it adds nothing to the name
            definition = ""
        yield Concept(
            id=_id(prefix, part, synset.offset),
            name=entry.name,
            definition=definition,
            category=LEXICOGRAPHER_FILES[synset.lexicographer_file],
            part_of_speech=part,
            broader=_id(prefix, part, above) if above in listed[part] else None,
            aliases=aliases,
            examples=examples,
            broader_name=_best_name(broader) if broader is not None else "",
            word_shares=tuple(_share(synset, word, uses) for word in (entry.lemma, *aliases)),
        )


Uses = dict[str, float]


def _uses(by_offset: Synsets) -> Uses:
    """Return how often each lemma, in lower case, occurs in WordNet's tagged texts, each sense half an occurrence more.

    Without the half, a sense that does not occur would be impossible.
    """
    uses: Uses = {}
    for synset in chain.from_iterable(known.values() for known in by_offset.values()):
        counts = synset.tag_counts or (0,) * len(synset.words)
        for word, occurrences in zip(synset.words, counts, strict=True):
            uses[word.lower()] = uses.get(word.lower(), 0.0) + occurrences + UNSEEN
    return uses


def _share(synset: Synset, word: str, uses: Uses) -> float:
    """Return which share of the uses of one of a synset's words means the synset.

    A form of another lemma counts as a use of the word: "saw" is a noun, and the past of "see".
    """
    lemma = word.replace(" ", "_").lower()
    counts = synset.tag_counts or (0,) * len(synset.words)
    own = max((n for own, n in zip(synset.words, counts, strict=True) if own.lower() == lemma), default=0)
    return min(1.0, (own + UNSEEN) / sum(uses.get(other, 0.0) for other in {lemma, *lemmas(lemma)}))


def _best_name(synset: Synset) -> str:
    """Return a synset's most frequent lemma, whether or not another synset has it as its name."""
    return _spelt(synset.words_by_count()[0])


def _aliases(synset: Synset, lemma: str) -> tuple[str, ...]:
    """Return the synset's words beside the one that names it, each once."""
    if len(synset.words) == 1:
        return ()
    others = dict.fromkeys(_spelt(word) for word in synset.words_by_count())
    return tuple(word for word in others if word != lemma)


def _id(prefix: str, part_of_speech: str, offset: int) -> str:
    """Return a synset's id, such as wordnet-3.0:02084071-n: version, offset and the letter of its file."""
    return f"{prefix}:{offset:08d}-{'r' if part_of_speech == 'adverb' else part_of_speech[0]}"


def _spelt(lemma: str) -> str:
    return lemma.replace("_", " ")
