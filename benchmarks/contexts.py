"""The prompts and figures of docs/contexts.md: prompts of each kind, and how fast and how well the model writes.

python benchmarks/contexts.py show      twenty prompts per kind of family, four for each of five concepts
python benchmarks/contexts.py measure   kept sentences per second, and why the others were dropped
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from encyclo.types import Concept, Context, Prompt
from encyclo_capture.model import TransformersModel
from encyclo_concepts import core
from encyclo_samplers import diverse, generated_sentences, templates

SHOWN = ("dog", "patience", "railway station", "borrow", "honest")
EACH = 4
WANTED = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["show", "measure"])
    parser.add_argument("--concepts", type=int, default=200)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    model = TransformersModel("gemma-3-270m", "cpu", given.dtype)
    if given.what == "show":
        show(model)
    else:
        measure(model, given.concepts)


def show(model: TransformersModel) -> None:
    """Print prompts of every kind of family as markdown lists, each with its mention in brackets."""
    known = {c.name: c for c in core.load_concepts(core.Options())}
    concepts = [known.get(name) or Concept(name, name) for name in SHOWN]
    kinds: dict[str, dict[str, list[Prompt]]] = {}
    for prompt in _prompts(concepts, model):
        kinds.setdefault(_kind(prompt.family), {}).setdefault(prompt.concept, []).append(prompt)
    for kind, by_concept in sorted(kinds.items()):
        print(f"\n### {kind}\n")
        for prompts in by_concept.values():
            for prompt in prompts[:EACH]:
                print(f"- {_marked(prompt)}")


def _prompts(concepts: list[Concept], model: TransformersModel) -> Iterator[Prompt]:
    with tempfile.TemporaryDirectory() as folder:
        plain = Context(0, "cpu", templates.Options(), Path(folder), prompts_wanted=100)
        yield from templates.sample_prompts(concepts, 1, plain)
        options = diverse.Options(definitions=0.2, generated=0.4)
        context = Context(0, "cpu", options, Path(folder), model=model, prompts_wanted=60)
        yield from diverse.sample_prompts(concepts, 2, context)


def _kind(family: str) -> str:
    """noun.subject.3 -> templates: subject; frame.noun.news.1 -> frames: news; generated.news.T1 -> generated."""
    first, second, *rest = family.split(".", 2)
    if first == "generated":
        return f"diverse, generated at temperature {rest[0][1:]}"
    if first == "frame":
        return f"diverse, written frames: {rest[0].split('.')[0]}"
    return f"diverse, {first}s" if first in ("definition", "relation") else f"templates: {second}"


def _marked(prompt: Prompt) -> str:
    if prompt.span is None:
        return prompt.text
    start, end = prompt.span
    return f"{prompt.text[:start]}**{prompt.text[start:end]}**{prompt.text[end:]}"


def measure(model: TransformersModel, count: int) -> None:
    """Print what share of generated sentences is kept, why the rest is dropped, and the rate."""
    concepts = list(core.load_concepts(core.Options()))[:count]
    recipe = generated_sentences.Recipe((0.7, 1.0, 1.3), 3)
    wanted = dict.fromkeys((c.id for c in concepts), WANTED)
    generated_sentences.generate(
        concepts[:1], {concepts[0].id: 1}, 2, _context(model), recipe
    )  # loads and warms up
    begun, worked = time.perf_counter(), time.process_time()
    found = generated_sentences.generate(concepts, wanted, 2, _context(model), recipe)
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    kept = [prompt for own in found.values() for prompt in own.kept]
    asked = sum(own.asked for own in found.values())
    dropped = sum((own.dropped for own in found.values()), Counter())
    print(
        f"{model.dtype}, {torch.get_num_threads()} threads, {count} concepts, {WANTED} sentences wanted of each"
    )
    print(
        f"asked {asked}, kept {len(kept)} ({len(kept) / asked:.1%}), {seconds:.1f} s, {worked:.1f} s of processor time"
    )
    print(f"{len(kept) / seconds:.1f} kept sentences a second, {asked / seconds:.1f} generated")
    print(f"concepts with too few: {sum(len(own.kept) < WANTED for own in found.values())}")
    for reason, number in dropped.most_common():
        print(f"| {reason} | {number / asked:.1%} |")
    print(_words(kept))


def _words(prompts: Iterable[Prompt]) -> str:
    places, inflected, words = [], 0, []
    for prompt in prompts:
        start, end = prompt.span or (0, 0)
        places.append(len(prompt.text[:start].split()))
        words.append(len(prompt.text.split()))
        inflected += prompt.text[start:end].lower() != prompt.concept.lower()
    count = len(words)
    return (
        f"mean words {sum(words) / count:.1f}; words before the mention {sum(places) / count:.1f}, none in "
        f"{sum(p == 0 for p in places) / count:.1%}; inflected {inflected / count:.1%}"
    )


def _context(model: TransformersModel) -> Context:
    return Context(0, "cpu", None, Path(tempfile.mkdtemp()), model=model)


if __name__ == "__main__":
    main()
