"""Measure the interpreters: their accuracy after training, compared with the goals.

    python benchmarks/interpreters.py --cache FOLDER                       every row
    python benchmarks/interpreters.py --cache FOLDER --rows core,unseen    some

What a row needs is captured once into the folder, with the real model and through the plugins that a run uses;
the rows that read definitions need 300,000 prompts (half an hour on a core, 2 GB). Training never reads what is
reported: whole families, sentences by other authors, or the concepts that the row calls unseen.
docs/interpreters.md has the figures and says how the settings were chosen.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from activations import ActivationCache
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.config import RunConfig
from encyclo.evaluation.rungs import FRAME
from encyclo.plugins.manager import Plugins
from encyclo.runs.session import prepare
from encyclo.statistics.splits import split_families
from encyclo.terminal import ConsoleProgress
from encyclo.types import Concept, Context, Prompt, SampleSet, Split

LAYERS = (-12, -9, -6, -3, -1)
WORD_FIRST = """Word: dog
Definition: a domesticated animal that barks

Word: river
Definition: a large natural stream of water

Word: forgiveness
Definition: the act of forgiving someone

Word: {}"""
NAMING = ("They talked about the {}", "A kind of {}", "A synonym of {}", WORD_FIRST)
DEFINING = (FRAME, FRAME + " the")
UNSEEN = 2000
FREQUENT = 12_000
# Frames in which nouns are used as in running text: plural, after an adjective, in a compound, first.
FRAMES = """{Name}|{name}|the {name}|{Generic} were everywhere.|his {name}|their old {name}|a few {generic}
It was the first {name} of its kind.|In the end the {name} was forgotten.|the {name} of the city
many different {generic}|He had no {name} left.|For a long {name} nothing happened.|She gave him her {name}.
{One} of great beauty|after the second {name}|the two {generic} met again|I have never seen such a {name}.
We need more {generic} next year.|It depends on the {name}.|with a great deal of {name}
All {generic} are alike in one respect.|That {name} is not mine.|What kind of {name} is this?
The new {name} opened last week.|Three {generic} later they came back.|He put the {name} down and left.
in terms of {name}|There is no {name} in it.|under the {name}|a matter of {name}|My {name} is better than yours.
The {name} policy was changed.|every {name} in the country|She was the {name} of the family.
He took {name} seriously.|they lost their {generic}|Good {generic} are hard to find.|the very idea of {name}
from one {name} to another"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--interpreters", default="transformer,centroid,logistic")
    parser.add_argument("--captured-only", action="store_true", help="leave out what the cache does not hold")
    parser.add_argument("-o", "--option", action="append", default=[], help="transformer's, such as epochs=4")
    arguments = parser.parse_args()
    options = {k: json.loads(v) for k, _, v in (text.partition("=") for text in arguments.option)}
    bench = Bench(
        ActivationCache(arguments.cache), arguments.interpreters.split(","), options, arguments.captured_only
    )
    for row in arguments.rows.split(","):
        ROWS[row](bench)


@dataclass(frozen=True)
class Bench:
    cache: ActivationCache
    interpreters: list[str]
    options: dict[str, Any]
    captured_only: bool

    def samples(self, concepts: Sequence[Concept], prompts: Sequence[Prompt], split: Any) -> SampleSet:
        """Return the prompts' samples, and capture those that are missing; `split` maps a prompt to its split."""
        if not self.captured_only:
            self.cache.capture(prompts)
        prompts = [prompt for prompt in prompts if self.cache.holds(prompt)]
        place = {concept.id: index for index, concept in enumerate(concepts)}
        families = sorted({prompt.family for prompt in prompts})
        number = {family: index for index, family in enumerate(families)}
        halves, scale = self.cache.table(prompts)
        return SampleSet(
            concept=np.array([place[p.concept] for p in prompts], np.int32),
            named=np.array([p.span is not None for p in prompts]),
            family=np.array([number[p.family] for p in prompts], np.int32),
            families=tuple(families),
            split=np.array([split(p) for p in prompts], np.int8),
            layers=LAYERS,
            fetch=lambda rows: half_precision.decode(halves[rows], scale[rows]),
        )

    def train(self, name: str, samples: SampleSet, concepts: Sequence[Concept]) -> tuple[Any, float]:
        """Return the trained interpreter and the seconds that it took."""
        plugins = Plugins()
        with tempfile.TemporaryDirectory() as folder:
            options = plugins.options(name, self.options if name == "transformer" else {})
            context = Context(0, "cpu", options, Path(folder))
            begun = time.perf_counter()
            trained = plugins.call(
                "train_interpreter", name, samples=samples, concepts=concepts, context=context
            )
            return trained, time.perf_counter() - begun


def core(bench: Bench) -> None:
    """Held-out families, and the time that training takes with 20 samples per concept."""
    concepts, prompts = templates("core")
    assigned = split_families({1: sorted({p.family for p in prompts})}, seed=0)
    samples = bench.samples(concepts, prompts, lambda p: assigned[p.family])
    for name in bench.interpreters:
        interpreter, seconds = bench.train(name, samples, concepts)
        ranks = ranks_of(interpreter, samples, samples.rows(Split.TEST))
        report("core, heldout_prompts", name, ranks, len(concepts), f"trained in {seconds:.0f} s")
    few = keep_first(samples, 20)
    for name in bench.interpreters:
        _, seconds = bench.train(name, few, concepts)
        print(f"core, {int((few.split == Split.TRAIN).sum()):,} training samples, {name}: {seconds:.1f} s")


def keep_first(samples: SampleSet, each: int) -> SampleSet:
    """Return the set with at most `each` samples per concept (all splits together)."""
    order = np.random.default_rng(0).permutation(len(samples))
    order = order[np.argsort(samples.concept[order], kind="stable")]
    _, first, count = np.unique(samples.concept[order], return_index=True, return_counts=True)
    rows = np.sort(order[np.arange(len(order)) - np.repeat(first, count) < each])
    return subset(samples, rows)


def subset(samples: SampleSet, rows: NDArray[np.int64]) -> SampleSet:
    return replace(
        samples,
        concept=samples.concept[rows],
        named=samples.named[rows],
        family=samples.family[rows],
        split=samples.split[rows],
        fetch=lambda chosen: samples.read(rows[chosen]),
    )


def natural(bench: Bench) -> None:
    """WordNet's example sentences for its 1,000 most frequent nouns, after templates, and frames as well."""
    concepts, prompts = templates("wordnet", 1000)
    framed = [prompt for concept in concepts for prompt in frames(concept)]
    sentences = [prompt for concept in concepts for prompt in examples(concept)]
    families = sorted({p.family for p in prompts + framed})
    watched = set(families[::12])
    for title, given in (("templates", prompts), ("templates and frames", prompts + framed)):
        samples = bench.samples(
            concepts,
            given + sentences,
            lambda p: (
                Split.TEST
                if p.family == "natural"
                else Split.VALIDATION
                if p.family in watched
                else Split.TRAIN
            ),
        )
        for name in bench.interpreters:
            interpreter, seconds = bench.train(name, samples, concepts)
            ranks = ranks_of(interpreter, samples, samples.rows(Split.TEST))
            report(f"natural, after {title}", name, ranks, len(concepts), f"trained in {seconds:.0f} s")


def frames(concept: Concept) -> list[Prompt]:
    from encyclo_samplers.templates import Template, fill

    texts = [text for line in FRAMES.splitlines() for text in line.split("|")]
    return [fill(Template(f"frame.{number}", text), concept) for number, text in enumerate(texts)]


def examples(concept: Concept) -> list[Prompt]:
    """Return the concept's example sentences that mention it, inflected or not."""
    from lemminflect import getAllInflections

    head, blank, last = concept.name.rpartition(" ")
    inflected = {form for forms in getAllInflections(last, upos="NOUN").values() for form in forms}
    spelt = sorted({head + blank + form for form in inflected | {last}}, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, spelt))})\b", re.IGNORECASE)
    found = ((text, pattern.search(text)) for text in concept.examples)
    return [Prompt(concept.id, text, match.span(), "natural") for text, match in found if match]


def unseen(bench: Bench) -> None:
    """Named samples of 200 concepts that training never saw, among all 1,000; every concept once."""
    concepts, prompts = templates("core")
    assigned = split_families({1: sorted({p.family for p in prompts})}, seed=0)
    samples = bench.samples(concepts, prompts, lambda p: assigned[p.family])
    fold = np.random.default_rng(1).permutation(len(concepts)) % 5
    for name in bench.interpreters:
        ranks = []
        for number in range(5):
            ranks.append(unseen_fold(bench, name, samples, concepts, fold == number))
        report("core, unseen, named", name, np.concatenate(ranks), len(concepts), "5 folds of 200")


def unseen_fold(
    bench: Bench, name: str, samples: SampleSet, concepts: list[Concept], held: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Train on the other concepts, add the held ones by their training families' mean, rank their test rows."""
    others, fresh = np.flatnonzero(~held), np.flatnonzero(held)
    place = np.empty(len(held), np.int32)
    place[others], place[fresh] = np.arange(len(others)), len(others) + np.arange(len(fresh))
    renumbered = replace(samples, concept=place[samples.concept])
    known = np.flatnonzero(~held[samples.concept])
    interpreter, _ = bench.train(name, subset(renumbered, known), [concepts[i] for i in others])
    signatures = [
        samples.read(np.flatnonzero((samples.concept == i) & (samples.split == Split.TRAIN))).mean(axis=0)
        for i in fresh
    ]
    interpreter.add_concepts([concepts[i].id for i in fresh], np.stack(signatures))
    rows = np.flatnonzero(held[samples.concept] & (samples.split == Split.TEST))
    return ranks_of(interpreter, renumbered, rows)


def definitions(bench: Bench) -> None:
    """Definitions of 2,000 synsets that training never saw, among 50,000 and among the most frequent."""
    concepts = load("wordnet", 50_000)
    clean = np.array([not shares_word(c) for c in concepts])
    order = np.random.default_rng(5).permutation(len(concepts))
    apart = order[:UNSEEN]
    prompts = [p for c in concepts for p in in_frames(c, NAMING, mention=True)]
    prompts += [p for c in concepts if c.definition for p in in_frames(c, DEFINING, mention=False)]
    samples = bench.samples(concepts, prompts, lambda _: Split.TRAIN)
    held = np.zeros(len(concepts), bool)
    held[apart] = True
    # The unseen concepts come last, added by their signatures; a twentieth of the known ones decides when to stop.
    others = np.flatnonzero(~held)
    place = np.empty(len(concepts), np.int32)
    place[others], place[apart] = np.arange(len(others)), len(others) + np.arange(len(apart))
    renumbered = replace(samples, concept=place[samples.concept])
    known = subset(renumbered, np.flatnonzero(~held[samples.concept]))
    watched = (known.concept % 20 == 0) & (known.family == known.families.index(NAMING[0]))
    known.split[watched] = Split.VALIDATION
    print(f"definitions of {len(np.unique(known.concept[~known.named])):,} concepts train")
    means = np.stack([samples.read(rows).mean(axis=0) for rows in rows_by_concept(samples, apart)])
    for name in bench.interpreters:
        if name == "logistic":
            continue  # it refuses this many concepts
        interpreter, seconds = bench.train(name, known, [concepts[i] for i in others])
        interpreter.add_concepts([concepts[i].id for i in apart], means)
        described = [
            np.flatnonzero(held[samples.concept] & (samples.family == samples.families.index(f)))
            for f in DEFINING
        ]
        frequent = np.isin(np.arange(len(concepts)), place[:FREQUENT])
        for title, rows in (("one frame", described[:1]), ("both frames' mean", described)):
            extra = f"{title}, trained in {seconds:.0f} s"
            for label, candidates in ((f"{len(concepts):,}", None), (f"{FREQUENT:,}", frequent)):
                ranks, truth = described_ranks(interpreter, renumbered, rows, candidates)
                report(f"unseen definitions among {label}", name, ranks, int(label.replace(",", "")), extra)
                own = clean[np.concatenate([others, apart])[truth]]
                report("  without a word of the name", name, ranks[own], int(label.replace(",", "")), extra)


def rows_by_concept(samples: SampleSet, concepts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return each concept's named rows."""
    named = np.flatnonzero(samples.named)
    order = named[np.argsort(samples.concept[named], kind="stable")]
    starts = np.searchsorted(samples.concept[order], concepts)
    ends = np.searchsorted(samples.concept[order], concepts, side="right")
    return [order[a:b] for a, b in zip(starts, ends, strict=True)]


def described_ranks(
    interpreter: Any,
    samples: SampleSet,
    described: list[NDArray[np.int64]],
    candidates: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the ranks by the mean score over frames (rows in the same order of concepts), and the truth."""
    truth = samples.concept[described[0]]
    chosen = np.arange(len(truth)) if candidates is None else np.flatnonzero(candidates[truth])
    ranks = []
    for start in range(0, len(chosen), 256):
        some = chosen[start : start + 256]
        scores = sum(interpreter.read(samples.read(rows[some])) for rows in described)
        if candidates is not None:
            scores = np.where(candidates, scores, -np.inf)
        own = scores[np.arange(len(some)), truth[some]]
        ranks.append((~(scores < own[:, None])).sum(axis=1))
    return np.concatenate(ranks), truth[chosen]


def in_frames(concept: Concept, texts: Sequence[str], mention: bool) -> list[Prompt]:
    prompts = []
    for text in texts:
        start, word = text.index("{}"), concept.name if mention else concept.definition
        span = (start, start + len(word)) if mention else None
        prompts.append(Prompt(concept.id, text.format(word), span, text))
    return prompts


def shares_word(concept: Concept) -> bool:
    """Return whether the definition contains a word of the concept's name or aliases, by its first five letters."""

    def stems(text: str) -> set[str]:
        return {word[:5] for word in re.findall(r"[a-z]{3,}", text.lower())} - {"the", "and", "for", "with"}

    return bool(
        set().union(*(stems(n) for n in (concept.name, *concept.aliases))) & stems(concept.definition)
    )


def load(source: str, limit: int | None = None) -> list[Concept]:
    options = {"wordnet": {"part_of_speech": ["noun"]}} if source == "wordnet" else {}
    config = RunConfig(concepts=source, limit=limit, options=options, per_concept=1000)
    return prepare(config, ConsoleProgress(quiet=True)).concepts


def templates(source: str, limit: int | None = None) -> tuple[list[Concept], list[Prompt]]:
    """Return the concepts, and every template's prompt for each."""
    options = {"wordnet": {"part_of_speech": ["noun"]}} if source == "wordnet" else {}
    config = RunConfig(
        concepts=source, limit=limit, options=options, per_concept=1000, sampler=("templates",)
    )
    session = prepare(config, ConsoleProgress(quiet=True))
    context = session.context("templates", Path())
    given = session.plugins.call(
        "sample_prompts", "templates", concepts=session.concepts, stage=1, context=context
    )
    return session.concepts, list(given)


def ranks_of(interpreter: Any, samples: SampleSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    from encyclo.statistics.accuracy import rank_samples

    return rank_samples(interpreter, samples, rows)


def report(what: str, name: str, ranks: NDArray[np.int64], candidates: int, extra: str) -> None:
    tops = " / ".join(f"{(ranks <= k).mean():.1%}" for k in (1, 10, 100))
    print(
        f"{what:38} {name:12} top-1/10/100 {tops}, median {np.median(ranks):.0f} "
        f"(n={len(ranks):,}, {candidates:,} candidates; {extra})",
        flush=True,
    )


ROWS: dict[str, Callable[[Bench], None]] = {
    "core": core,
    "natural": natural,
    "unseen": unseen,
    "definitions": definitions,
}

if __name__ == "__main__":
    main()
