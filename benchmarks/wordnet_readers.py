"""Could nltk's WordNet reader replace encyclo's? Speed, memory, and whether both read the same.

    pip install nltk
    python benchmarks/wordnet_readers.py

Each reader loads Debian's database (`--path`) in a process of its own. encyclo's gives the first 50,000 concepts, in
order and named. nltk's gives what they are made of: the synsets, and how often each sense was met. It is helped
to read Debian's directory at all: it gets the file lexnames, may open the path, and doesn't look for NLTK's own
corpus `wordnet`.

    seconds     the median of `--repeats` processes, without imports
    MB          peak memory beyond that after the imports
    differ      synsets whose words, counts, category, broader synsets (as a set), definition or examples nltk gives
                differently
    unordered   synsets with several broader ones, which nltk keeps as a set: which is first changes between runs
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from encyclo_concepts.gloss import split_gloss
from encyclo_concepts.wndb import LEXICOGRAPHER_FILES, PARTS_OF_SPEECH, open_folder, read_synsets
from encyclo_concepts.wordnet import DEBIAN, Options, load_concepts

NUMBERS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def nltk_reader(folder: Path) -> Any:
    """Return nltk's reader of a directory that holds lexnames."""
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    warnings.simplefilter("ignore")
    nltk.data.path.insert(0, str(folder))

    class Reader(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Don't compare with NLTK's own copy of WordNet, which needn't be installed."""

    return Reader(str(folder), None)


def load(name: str, folder: Path) -> None:
    """Load with one reader and print seconds and megabytes."""
    if name != "encyclo":
        import_module("nltk.corpus.reader.wordnet")
    before, began = peak_mb(), time.perf_counter()
    if name == "encyclo":
        kept: Any = list(islice(load_concepts(Options(path=folder)), 50_000))
    else:
        kept = list(nltk_reader(folder).all_synsets())
    if name == "nltk, counts":
        kept = [[lemma.count() for lemma in synset.lemmas()] for synset in kept], kept
    print(time.perf_counter() - began, peak_mb() - before)


def differences(folder: Path) -> dict[str, int]:
    """Return how many synsets nltk reads differently, by what differs."""
    reader = nltk_reader(folder)
    _, ours = read_synsets(open_folder(folder), list(PARTS_OF_SPEECH))
    theirs = {(s.pos().replace("s", "a"), s.offset()): s for s in reader.all_synsets()}
    found = dict.fromkeys(
        ("missing", "words", "counts", "category", "broader", "unordered", "definition", "examples"), 0
    )
    for synset in ours:
        letter = "r" if synset.part_of_speech == "adverb" else synset.part_of_speech[0]
        other = theirs.get((letter, synset.offset))
        if other is None:
            found["missing"] += 1
            continue
        above = synset.hypernyms()
        counts = tuple(lemma.count() for lemma in other.lemmas())
        definition, examples = split_gloss(synset.gloss)
        found["words"] += tuple(other.lemma_names()) != synset.words
        found["counts"] += counts != (synset.tag_counts or (0,) * len(counts))
        found["category"] += other.lexname() != LEXICOGRAPHER_FILES[synset.lexicographer_file]
        found["broader"] += {s.offset() for s in other.hypernyms() + other.instance_hypernyms()} != set(above)
        found["unordered"] += len(above) > 1
        found["definition"] += other.definition() != definition
        found["examples"] += tuple(other.examples()) != examples
    return {"of": len(ours), **found}


def with_lexnames(source: Path, folder: Path) -> Path:
    """Copy a database, and add the file lexnames if it lacks it."""
    shutil.copytree(source, folder)
    lines = [f"{i:02d}\t{n}\t{NUMBERS[n.partition('.')[0]]}\n" for i, n in enumerate(LEXICOGRAPHER_FILES)]
    (folder / "lexnames").write_text("".join(lines))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, default=DEBIAN)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        load(given.load, given.path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = with_lexnames(given.path, Path(scratch, "wordnet"))
        for name in ("encyclo", "nltk", "nltk, counts"):
            command = [sys.executable, __file__, "--path", str(folder), "--load", name]
            runs = [
                subprocess.run(command, check=True, capture_output=True, text=True)
                for _ in range(given.repeats)
            ]
            seconds, memory = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
            print(f"{name:14} {statistics.median(seconds):6.1f} s {statistics.median(memory):6.0f} MB")
        print("differ", differences(folder))


if __name__ == "__main__":
    main()
