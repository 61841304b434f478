"""Convert SemCor into the file that `encyclo evaluate --running-text` and the sampler `sentences` read.

    python benchmarks/semcor_sentences.py semcor.jsonl.gz --split test --documents 30 --nouns --out test.jsonl
    encyclo evaluate RUN --running-text test.jsonl --words 1000000

SemCor 3.0 is texts of the Brown corpus whose words are tagged with WordNet 3.0 synsets (Landes, Leacock and
Fellbaum, 1998). It comes as JSON Lines, one sentence per line: doc, split, all_words, text, and senses [start, end,
lemma, offset-pos]. Each tagged word becomes a line whose concept is the synset's id in the list `wordnet`, or ? if it
is the name of a person, a place or a group. Each other word becomes a line without a concept, unless only the verbs of
its document are tagged. With --nouns other parts of speech count as words without a tag.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from encyclo.query.word_readings import word_spans

NAMES = {("person", "00007846-n"), ("location", "00027167-n"), ("group", "00031264-n")}
"""The lemmas and synsets that SemCor gives to names."""


def rows(path: Path, split: str, documents: int | None) -> Iterator[dict]:
    """Yield the sentences of the split's first documents, in the file's order."""
    seen: dict[str, None] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["split"] == split:
                seen[row["doc"]] = None
                if documents is None or len(seen) <= documents:
                    yield row


def marks(row: dict, nouns: bool, prefix: str) -> Iterator[tuple[str, int, int]]:
    """Yield (concept, start, end) of a sentence's words."""
    covered = []
    for start, end, lemma, synset in row["senses"]:
        if not any(map(str.isalnum, row["text"][start:end])):
            continue  # such as "|": SemCor tags a sign, which is no word to read
        name = (lemma, synset) in NAMES
        if name or not nouns or synset.endswith("-n"):
            covered.append((start, end))
            yield "?" if name else f"{prefix}:{synset}", start, end
    if row["all_words"]:
        for start, end in word_spans(row["text"]):
            if not any(a < end and start < b for a, b in covered):
                yield "", start, end


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("semcor", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--documents", type=int, help="how many of the split's documents; default: all")
    parser.add_argument("--nouns", action="store_true")
    parser.add_argument("--prefix", default="wordnet-3.0", help="what the list's ids begin with")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with given.out.open("w", encoding="utf-8") as file:
        for row in rows(given.semcor, given.split, given.documents):
            for concept, start, end in marks(row, given.nouns, given.prefix):
                line = {"concept": concept, "sentence": row["text"], "start": start, "end": end}
                file.write(json.dumps({**line, "source": row["doc"]}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
