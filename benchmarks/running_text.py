"""What does a run read in running text, compared with a dictionary?

    encyclo run --concepts wordnet -o wordnet.part_of_speech=noun --limit 5000 --out RUN
    python benchmarks/running_text.py RUN --semcor semcor.jsonl.gz --documents 30

SemCor 3.0 is texts of the Brown corpus whose words are tagged with WordNet 3.0 synsets (Landes, Leacock and
Fellbaum, 1998). It comes as JSON Lines, one sentence per line: doc, split, all_words, text, and senses [start, end,
lemma, offset-pos]. The run reads the first documents of a split from beginning to end. Names of people, places and
groups don't count.

    mention     a word whose tag is an entry's synset (by sense), or an inflected name or alias of an entry (by word)
    reading     a word whose last token is read as an entry with a confidence of at least --at-least
    right       the entry is the tagged synset (by sense), or its name or alias is the word (by word)
    false alarm a reading, per thousand words, where no entry's word stands: no noun that an entry is a sense of
    error       the expected calibration error of the readings

The list `wordnet` is judged by sense, any other list by word. The dictionary gives a word the first sense that
WordNet's index has for its lemma; with an oracle only where SemCor says that the word is a noun, or has no tag.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from lemminflect import getLemma

from encyclo import english
from encyclo.plugins.manager import Plugins
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.query.word_readings import entries_at, word_spans
from encyclo.runs.reopen import reopen_concepts
from encyclo.statistics.calibration import expected_calibration_error, reliability_bins
from encyclo.types import Concept

NAMES = {"person", "location", "group"}
"""The lemmas that SemCor gives to names."""


@dataclass(frozen=True)
class Word:
    """A word of a document: where it ends in the document's text, and what SemCor says of it."""

    form: str
    """Its lemma if it is tagged, else the word itself."""
    end: int
    synset: str
    """offset-pos; empty if it has no tag."""


@dataclass(frozen=True)
class Answer:
    """What a reader says about a word: an entry's id, or None; and its confidence."""

    entry: str | None
    confidence: float


class Entries:
    """A run's entries by their words."""

    def __init__(self, concepts: Iterable[Concept]) -> None:
        self.by_word: dict[str, list[str]] = defaultdict(list)
        for concept in concepts:
            for word in (concept.name.partition(" (")[0], *concept.aliases):
                self.by_word[word.lower()].append(concept.id)
        self.ids = {entry for entries in self.by_word.values() for entry in entries}
        self.by_sense = any(entry.startswith("wordnet") for entry in self.ids)

    def of(self, word: Word) -> set[str]:
        """Return the entries that have the word, as a noun, among their names and aliases."""
        if self.by_sense and word.synset and not word.synset.endswith("-n"):
            return set()
        forms = (
            lemmas(word.form) if self.by_sense else (word.form.lower(), *english.lemmas(word.form.lower()))
        )
        return {entry for lemma in forms for entry in self.by_word.get(lemma, ())}

    def right(self, word: Word, entry: str) -> bool:
        """Return whether the entry is the word's tagged sense, or has the word."""
        return entry.partition(":")[2] == word.synset if self.by_sense else entry in self.of(word)

    def is_mention(self, word: Word) -> bool:
        """Return whether an entry should be read at the word."""
        if not self.by_sense:
            return bool(self.of(word))
        return any(entry.partition(":")[2] == word.synset for entry in self.of(word))

    def stands(self, word: Word) -> bool:
        """Return whether a noun that an entry is a sense of stands there."""
        return bool(self.of(word)) and bool(word.synset or not self.by_sense)


@cache
def lemmas(form: str) -> tuple[str, ...]:
    """Return the form in lower case and the nouns that it may be an inflection of."""
    lower = form.lower()
    return tuple(dict.fromkeys((lower, *getLemma(lower, upos="NOUN", lemmatize_oov=False))))


def documents(path: Path, split: str, count: int) -> Iterator[tuple[str, list[Word]]]:
    """Yield the text and the words of the split's first documents, in the file's order."""
    sentences: dict[str, list[dict]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["split"] == split and row["all_words"]:
                sentences[row["doc"]].append(row)
    for rows in list(sentences.values())[:count]:
        text, words = "", []
        for row in rows:
            words += [Word(w.form, w.end + len(text), w.synset) for w in _words(row)]
            text += row["text"] + " "
        yield text, words


def _words(row: dict) -> Iterator[Word]:
    """Yield a sentence's words without names. A tagged phrase counts as one word, which ends with its last."""
    for start, end in word_spans(row["text"]):
        tag = next((t for t in row["senses"] if t[0] < end and start < t[1]), None)
        if tag is None:
            yield Word(row["text"][start:end], end, "")
        elif tag[2] not in NAMES and tag[1] <= end:
            yield Word(tag[2], end, tag[3])


def read(book: Encyclopedia, text: str, words: list[Word], any_word: bool) -> list[Answer]:
    """Return what the run reads at each word's last token."""
    tokens = book.read(text, top=1, at_least=0, any_word=any_word)
    at_end = {token.end: token.concepts[0] for token in tokens}
    found = (at_end.get(word.end) for word in words)
    return [Answer(c.id, c.confidence or 0.0) if c else Answer(None, 0.0) for c in found]


def by_shares(book: Encyclopedia, text: str, words: list[Word]) -> list[Answer]:
    """Return the likeliest entry of each word by the list's shares alone, without the interpreter."""
    known, ids = book.reader().words, book.reader().interpreter.concepts
    assert known is not None
    answers = []
    for entries in entries_at(text, [word.end for word in words], known):
        row = max(entries, key=lambda row: entries[row] or 0.0, default=None)
        share = 0.0 if row is None else entries[row]
        answers.append(Answer(None if row is None else ids[row], 1.0 if share is None else share))
    return answers


def look_up(words: list[Word], first: dict[str, str], entries: Entries, oracle: bool) -> list[Answer]:
    """Return the first sense of each word's lemma, where it is an entry."""
    answers = []
    for word in words:
        noun = not oracle or not word.synset or word.synset.endswith("-n")
        senses = [first[lemma] for lemma in lemmas(word.form) if lemma in first]
        entry = next((e for e in senses if noun and e in entries.ids), None)
        answers.append(Answer(entry, 1.0 if entry else 0.0))
    return answers


def first_senses(index: Path, prefix: str) -> dict[str, str]:
    """Return each noun's first sense in WordNet's index.noun, as the list `wordnet` names it."""
    first = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            first[fields[0].replace("_", " ")] = f"{prefix}:{fields[-int(fields[2])]}-n"
    return first


def print_row(
    title: str, words: list[Word], answers: list[Answer], entries: Entries, at_least: float
) -> None:
    """Print the figures of one reader."""
    given = np.array([answer.entry is not None and answer.confidence >= at_least for answer in answers])
    right = np.array(
        [bool(a.entry) and entries.right(w, a.entry or "") for w, a in zip(words, answers, strict=True)]
    )
    mentions = sum(map(entries.is_mention, words))
    stands = np.array([entries.stands(word) for word in words])
    confidence = np.array([answer.confidence for answer in answers])
    bins = reliability_bins(confidence[given], right[given])
    error = expected_calibration_error(bins) if given.any() else np.nan
    print(
        f"| {title} | {mentions:,} | {given.sum():,} | {(given & right).sum() / max(mentions, 1):.1%} "
        f"| {(given & right).sum() / max(given.sum(), 1):.1%} | {1000 * (given & ~stands).sum() / len(words):.1f} "
        f"| {error:.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--semcor", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--documents", type=int, default=30)
    parser.add_argument("--at-least", type=float, default=0.5)
    parser.add_argument("--index", type=Path, default=Path("/usr/share/wordnet/index.noun"))
    given = parser.parse_args()
    book = open_run(given.run)
    entries = Entries(reopen_concepts(given.run, book.record, Plugins()))
    words: list[Word] = []
    answers: list[Answer] = []
    anywhere: list[Answer] = []
    shares: list[Answer] = []
    for text, of_text in documents(given.semcor, given.split, given.documents):
        words += of_text
        answers += read(book, text, of_text, any_word=False)
        anywhere += read(book, text, of_text, any_word=True)
        shares += by_shares(book, text, of_text)
    print(
        f"{len(words):,} words, {'by sense' if entries.by_sense else 'by word'}, at {given.at_least:.0%} confidence\n"
    )
    print(
        "| reader | mentions | readings | recall | precision | false alarms per 1,000 words | calibration error |"
    )
    print("|---|---|---|---|---|---|---|")
    print_row("the run", words, answers, entries, given.at_least)
    print_row("the run, at any word", words, anywhere, entries, given.at_least)
    print_row("the list's shares, no interpreter", words, shares, entries, given.at_least)
    if entries.by_sense:
        first = first_senses(given.index, next(iter(entries.ids)).partition(":")[0])
        for title, oracle in (("first sense", False), ("first sense, oracle for nouns", True)):
            print_row(title, words, look_up(words, first, entries, oracle), entries, given.at_least)


if __name__ == "__main__":
    main()
