"""A labelled text for `encyclo evaluate --running-text`: its documents, and what each of their words means.

The file has the format of `encyclo.labelled_sentences`, read as running text. The different sentences of a source,
in the file's order and joined by blanks, are a document. A line marks a word or a phrase of its sentence:

    concept                 the words mean
    an entry's id or name   this entry
    ?                       something that is not judged, such as a person
    any other               a concept that is not in the run, so none of the entries
    empty                   nothing: the line only brings its sentence

Every mention of an entry has its line: words without a mark mean none of the entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from encyclo.english import find_mention
from encyclo.errors import UsageError
from encyclo.labelled_sentences import (
    BACKGROUND,
    NOT_JUDGED,
    Sentence,
    advice,
    file_hash,
    labelled_lines,
    mention,
)
from encyclo.query.word_readings import word_spans
from encyclo.table_files import fault
from encyclo.types import Concept

FLAG = "--running-text FILE"
WORDS = 20_000
"""The most words that are read, by default."""


@dataclass(frozen=True)
class LabelledWord:
    """A judged word of a document; a marked phrase counts as one word, which ends with its last."""

    form: str
    """The word, or the marked phrase, in lower case."""
    end: int
    """Where it ends in the document's text."""
    concepts: frozenset[str]
    """What it is marked with: ids of entries, and the file's names of concepts that are not in the run."""


@dataclass(frozen=True)
class LabelledDocument:
    """A document's text and its judged words, in their order."""

    text: str
    words: Sequence[LabelledWord]


@dataclass(frozen=True)
class LabelledText:
    """The documents of a file, the file's name and its sha256."""

    documents: Sequence[LabelledDocument]
    file: str
    sha256: str


Line = tuple[Sentence, Concept | None]
"""A line of the file, and the entry that it names."""
Mark = tuple[int, int, str]
"""Where a mark starts and ends, and its concept: an entry's id, else what the file says."""


def read_labelled_text(path: Path, concepts: Sequence[Concept], most: int = WORDS) -> LabelledText:
    """Return the file's first sources that have at most `most` words together; the first is cut if it has more.

    Raises UsageError, naming file and line, for a line that can't be used, and for a file without sentences.
    """
    sources: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    digest = file_hash(path, FLAG)
    for line, concept in labelled_lines(path, FLAG, concepts):
        sources[line.source][line.text].append((line, concept))
    if not sources:
        raise UsageError(f"{path} has no sentence; {advice(FLAG)}.")
    documents: list[LabelledDocument] = []
    for sentences in sources.values():
        length = sum(map(_length, sentences))
        if documents and length > most:
            break
        documents.append(_document(path, {text: sentences[text] for text in _first(sentences, most)}))
        most -= length
    return LabelledText(documents, path.name, digest)


def _first(sentences: Iterable[str], most: int) -> list[str]:
    """Return the first sentence, and those after it that have at most `most` words with it."""
    kept: list[str] = []
    for text in sentences:
        most -= _length(text)
        if kept and most < 0:
            break
        kept.append(text)
    return kept


def _length(text: str) -> int:
    return sum(1 for _ in word_spans(text))


def _document(path: Path, sentences: Mapping[str, Sequence[Line]]) -> LabelledDocument:
    marks: list[Mark] = []
    offset = 0
    for text, lines in sentences.items():
        for line, entry in lines:
            if place := _place(path, line, entry):
                concept = entry.id if entry else line.concept
                marks.append((offset + place[0], offset + place[1], concept))
        offset += len(text) + 1
    whole = " ".join(sentences)
    entries = {entry.id for lines in sentences.values() for _, entry in lines if entry}
    return LabelledDocument(whole, _words(whole, marks, entries))


def _place(path: Path, line: Sentence, entry: Concept | None) -> tuple[int, int] | None:
    """Return the characters that the line marks; None if it marks none. Raises UsageError if it should."""
    if line.concept == BACKGROUND:
        return None
    if entry:
        start, end = mention(path, line, entry)
        if not _length(line.text[start:end]):
            raise fault(path, line.line, f"start {start} and end {end} mark no word; correct or delete it")
        return start, end
    if line.span is None and line.concept == NOT_JUDGED:
        raise fault(path, line.line, "its concept is ?, but no words are marked; give their start and end")
    return line.span or find_mention(line.text, Concept(line.concept, line.concept))


def _words(text: str, marks: Iterable[Mark], entries: set[str]) -> list[LabelledWord]:
    """Return the words without those not judged; words of a phrase before its last count only if marked themselves."""
    spans = list(word_spans(text))
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    first_of: dict[int, int] = {}
    concepts: dict[int, set[str]] = defaultdict(set)
    for start, end, concept in marks:
        first, last = bisect_right(ends, start), bisect_left(starts, end) - 1
        if first <= last:
            first_of[last] = min(first, first_of.get(last, first))
            concepts[last].add(concept)
    inside = {place for last, first in first_of.items() for place in range(first, last)}
    words = []
    for place, end in enumerate(ends):
        marked = frozenset(concepts[place]) if place in concepts else frozenset()
        hidden = NOT_JUDGED in marked and not marked & entries
        if not hidden and (marked or place not in inside):
            form = text[starts[first_of.get(place, place)] : end].lower()
            words.append(LabelledWord(form, end, marked - {NOT_JUDGED}))
    return words
