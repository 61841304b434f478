"""Writes a WordNet database of a few synsets, every byte as Princeton's files have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LICENCE = "".join(
    f"  {number} {text}  \n" for number, text in enumerate(["A licence.", "WordNet 3.0 Copyright 2006"], 1)
)
ENDINGS = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
FRAMES = {"v": "01 + 02 00 "}


@dataclass(frozen=True)
class Line:
    """A synset; `pointers` name other synsets by their keys in the database."""

    kind: str
    words: Sequence[str]
    gloss: str
    file: int = 3
    pointers: Sequence[tuple[str, str]] = ()
    ids: Sequence[int] = ()

    def text(self, offset: int, offsets: Mapping[str, int], kinds: Mapping[str, str]) -> str:
        ids = self.ids or [0] * len(self.words)
        words = "".join(f"{word} {number:x} " for word, number in zip(self.words, ids, strict=True))
        pointers = "".join(
            f"{symbol} {offsets[key]:08d} {kinds[key].replace('s', 'a')} 0000 "
            for symbol, key in self.pointers
        )
        return (
            f"{offset:08d} {self.file:02d} {self.kind} {len(self.words):02x} {words}{len(self.pointers):03d} "
            f"{pointers}{FRAMES.get(self.kind, '')}| {self.gloss}  \n"
        )


def write_database(folder: Path, lines: Mapping[str, Line], counts: Mapping[str, int]) -> dict[str, int]:
    """Write data, index and count files into `folder`; return each synset's offset."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {key: line.kind for key, line in lines.items()}
    offsets = dict.fromkeys(lines, 0)
    for _ in range(2):  # an offset always has eight digits: the second pass has them right
        texts = dict.fromkeys(ENDINGS.values(), LICENCE)
        for key, line in lines.items():
            ending = ENDINGS[line.kind]
            offsets[key] = len(texts[ending].encode())
            texts[ending] += line.text(offsets[key], offsets, kinds)
    for ending, text in texts.items():
        (folder / f"data.{ending}").write_bytes(text.encode())
        named = [
            (word.lower(), offsets[key])
            for key, line in lines.items()
            if ENDINGS[line.kind] == ending
            for word in line.words
        ]
        index = "".join(f"{word} {ending[0]} 1 0 1 0 {offset:08d}  \n" for word, offset in sorted(named))
        (folder / f"index.{ending}").write_text(LICENCE + index)
    (folder / "cntlist.rev").write_text(
        "".join(f"{key} 1 {count}\n" for key, count in sorted(counts.items()))
    )
    return offsets


LINES = {
    "animal": Line("n", ["animal", "beast"], "a living thing that moves", 3),
    "dog": Line("n", ["dog", "domestic_dog"], 'a tame barker; kept as a pet; "the dog barked; it ran"', 5, [("@", "animal")]),
    "cad": Line("n", ["cad", "dog"], 'a man who behaves badly; "you dirty dog"', 18, ids=[0, 1]),
    "rex": Line("n", ["Rex"], "a certain animal", 5, [("@i", "dog")]),
    "hound": Line("n", ["dog"], "a hunter's helper", 5, [("@", "animal")], [2]),
    "chase": Line("v", ["chase", "dog"], "go after", 38, ids=[0, 0]),
    "tail": Line("v", ["tail"], 'follow; "The police tailed him"', 38, [("@", "chase")]),
    "wet": Line("a", ["wet"], "covered with a liquid", 0),
    "awash": Line("s", ["awash(p)", "afloat(ip)"], "under water", 0, [("&", "wet")], [0, 2]),
    "outer": Line("a", ["outer(a)"], "being on the outside", 0),
    "outermost": Line("s", ["outermost"], "on the very outside", 0, [("&", "outer")]),
    "quickly": Line("r", ["quickly"], "with speed", 2),
}  # fmt: skip
COUNTS = {
    "dog%1:05:00::": 42, "animal%1:03:00::": 40, "beast%1:03:00::": 1, "cad%1:18:00::": 1, "dog%1:18:01::": 2,
    "chase%2:38:00::": 5, "dog%2:38:00::": 1, "wet%3:00:00::": 30, "awash%5:00:00:wet:00": 3,
    "afloat%5:00:02:wet:00": 4, "outermost%5:00:00:outer(a):00": 2, "quickly%4:02:00::": 30,
}  # fmt: skip
