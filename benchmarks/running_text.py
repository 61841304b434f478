"""What does a dictionary read in running text? For comparison with `encyclo evaluate --running-text`.

    python benchmarks/semcor_sentences.py semcor.jsonl.gz --split test --documents 30 --out all.jsonl
    python benchmarks/running_text.py RUN all.jsonl

RUN is a run of nouns of the list `wordnet`. The dictionary gives a word the first sense that WordNet's index has for
its lemma; with an oracle only where SemCor says that the word is a noun, or has no tag. The columns are those of
docs/evaluation.md, by sense.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from lemminflect import getLemma

from encyclo.evaluation.labelled_text import LabelledWord, read_labelled_text
from encyclo.evaluation.running_text import AT_LEAST, Judge
from encyclo.plugins.manager import Plugins
from encyclo.runs.directory import read_record
from encyclo.runs.reopen import reopen_concepts
from encyclo.statistics.running_text import Answers, reading_figures


@cache
def lemmas(form: str) -> tuple[str, ...]:
    """Return the form and the nouns that it may be an inflection of."""
    return tuple(dict.fromkeys((form, *getLemma(form, upos="NOUN", lemmatize_oov=False))))


def first_senses(index: Path, prefix: str) -> dict[str, str]:
    """Return each noun's first sense in WordNet's index.noun, as the list `wordnet` names it."""
    first = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            first[fields[0].replace("_", " ")] = f"{prefix}:{fields[-int(fields[2])]}-n"
    return first


def look_up(word: LabelledWord, first: dict[str, str], row_of: dict[str, int], oracle: bool) -> int:
    """Return the row of the first sense of the word's lemma; -1 if it is not an entry."""
    if oracle and word.concepts and not nouns(word):
        return -1
    senses = [first[lemma] for lemma in lemmas(word.form) if lemma in first]
    return next((row_of[sense] for sense in senses if sense in row_of), -1)


def nouns(word: LabelledWord) -> frozenset[str]:
    """Return the nouns that the word is tagged with."""
    return frozenset(concept for concept in word.concepts if concept.endswith("-n"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--index", type=Path, default=Path("/usr/share/wordnet/index.noun"))
    given = parser.parse_args()
    concepts = reopen_concepts(given.run, read_record(given.run), Plugins())
    row_of = {concept.id: row for row, concept in enumerate(concepts)}
    documents = read_labelled_text(given.file, concepts, given.words).documents
    words = [word for document in documents for word in document.words]
    origin = np.repeat(np.arange(len(documents)), [len(document.words) for document in documents])
    judge = Judge(concepts, [LabelledWord(w.form, w.end, nouns(w)) for w in words], origin, seed=0)
    first = first_senses(given.index, concepts[0].id.partition(":")[0])
    print(
        f"{len(words):,} words\n\n| reader | mentions | readings | recall | precision | others per 1,000 words |"
    )
    print("|---|---|---|---|---|---|")
    for title, oracle in (("first sense", False), ("first sense, oracle for nouns", True)):
        entry = np.array([look_up(word, first, row_of, oracle) for word in words], np.int64)
        found = reading_figures(
            Answers(entry, np.ones(len(entry))), judge.marked, judge.stands, origin, AT_LEAST
        )
        print(
            f"| {title} | {found.n:,} | {found.readings:,} | {found.recall:.1%} | {found.precision:.1%} "
            f"| {found.others_per_1000:.1f} |"
        )


if __name__ == "__main__":
    main()
