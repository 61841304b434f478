"""The rung `aliases`: prompts and sentences that mention an entry by an alias that its training samples never had."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from random import Random

import numpy as np

from encyclo.english import find_mention, normalised, without_qualifier
from encyclo.held_out_aliases import clear_aliases, named
from encyclo.pipeline.collect import ask_sampler
from encyclo.pipeline.natural_sentences import RungSamples, capture_rung, draw_concepts, prompts_of
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Session
from encyclo.seeds import derive_seed
from encyclo.statistics.splits import leaked_prompts, names_itself
from encyclo.storage.ledger import Commit, read_committed
from encyclo.types import Concept, Prompt, SampleSet, Split

FRAMES = 3
"""The most prompts of an alias; its sentences by other authors come on top."""
ASKED = 200
"""How many prompts a sampler is asked for, of which those of held-out families are kept."""


@dataclass(frozen=True)
class Alias:
    """A held-out alias, its concept's place in the run's list, and whether the word mostly means the concept."""

    place: int
    word: str
    clear: bool


def capture_aliases(
    run: OpenRun, samples: SampleSet, commits: Sequence[Commit], limit: int
) -> RungSamples | None:
    """Capture at most `limit` prompts and sentences that mention a concept by a held-out alias; None without any.

    `left_out` counts the held-out aliases that are not new words: see `unseen_aliases`.
    """
    session = run.session
    aliases, left_out = unseen_aliases(run, commits)
    frames = frame_prompts(run, [alias for alias in aliases if alias.clear], families_that_test(samples))
    prompts: list[Prompt] = []
    for alias in aliases:
        prompts += [*frames[alias], *sentences(session, alias)]
    leaked = leaked_prompts(prompts_of(run.store, commits), [prompt.text for prompt in prompts])
    prompts = [prompt for place, prompt in enumerate(prompts) if place not in leaked][:limit]
    if not prompts:
        return None
    captured = capture_rung(run, prompts, "mentions by held-out aliases")
    return RungSamples(captured, np.arange(len(prompts)), left_out)


def unseen_aliases(run: OpenRun, commits: Sequence[Commit]) -> tuple[list[Alias], int]:
    """Return the held-out aliases, in the order in which a rung draws concepts, and how many are left out.

    An alias is left out if it shares a content word with the concept's other names, if it is another concept's word
    too, or if a training sample of the concept has it (such as a sentence that the model wrote).
    """
    concepts, trainable = run.session.concepts, run.session.trainable
    owners = Counter(word for concept in concepts for word in {*map(_key, (concept.name, *concept.aliases))})
    seen = _seen(run, commits)
    found, left_out = [], 0
    for place in draw_concepts(concepts, run.session.config.seed):
        clear = clear_aliases(concepts[place])
        for word in trainable[place].held_out_aliases:
            known = dataclasses.replace(trainable[place], held_out_aliases=())
            if names_itself(known, word) or owners[_key(word)] > 1 or word in seen[place]:
                left_out += 1
            else:
                found.append(Alias(place, word, word in clear))
    return found, left_out


def families_that_test(samples: SampleSet) -> set[str]:
    """Return the prompt families that test."""
    return {samples.families[family] for family in np.unique(samples.family[samples.rows(Split.TEST)])}


def frame_prompts(run: OpenRun, aliases: Sequence[Alias], families: set[str]) -> dict[Alias, list[Prompt]]:
    """Return at most FRAMES prompts of each alias, of `families`: by the run's first sampler that has any."""
    found: dict[Alias, list[Prompt]] = defaultdict(list)
    session = run.session
    # Each under an id of its own, since a concept may have several aliases.
    asked = {str(number): alias for number, alias in enumerate(aliases)}
    concepts = [
        dataclasses.replace(named(session.concepts[alias.place], alias.word), id=key, definition="")
        for key, alias in asked.items()
    ]
    for stage in session.stages if aliases else ():
        if session.may_skip(stage):
            continue
        wanted = dict.fromkeys(asked, ASKED)
        for prompt in ask_sampler(run, concepts, stage, wanted=wanted, judging=True):
            if prompt.span and prompt.family in families:
                found[asked[prompt.concept]].append(prompt)
        if found:
            break
    return defaultdict(list, {alias: _some(session, alias, own) for alias, own in found.items()})


def sentences(session: Session, alias: Alias) -> Iterator[Prompt]:
    """Yield the concept's examples that mention it by the alias and by no other of its words."""
    concept, trainable = session.concepts[alias.place], session.trainable[alias.place]
    known = zip(concept.examples, concept.example_spans or repeat(None), strict=False)
    for text, given in known:
        span = find_mention(text, named(concept, alias.word))
        others = (trainable.name, *trainable.aliases)
        if span and given in (None, span) and not any(find_mention(text, named(concept, o)) for o in others):
            yield Prompt(concept.id, text, span, "natural")


def _some(session: Session, alias: Alias, prompts: list[Prompt]) -> list[Prompt]:
    concept: Concept = session.concepts[alias.place]
    random = Random(derive_seed(session.config.seed, "alias prompts", concept.id, alias.word))
    chosen = random.sample(prompts, min(FRAMES, len(prompts)))
    return [dataclasses.replace(prompt, concept=concept.id) for prompt in chosen]


def _seen(run: OpenRun, commits: Sequence[Commit]) -> dict[int, set[str]]:
    """Return by concept the held-out aliases that stand in one of its samples, inflected or not."""
    trainable, found = run.session.trainable, defaultdict[int, set[str]](set)
    for commit in commits:
        if not commit.rows:
            continue
        part = read_committed(run.store, commit)
        for place, text in zip(part.concept.tolist(), part.prompt, strict=True):
            for word in trainable[place].held_out_aliases:
                if word not in found[place] and find_mention(text, named(trainable[place], word)):
                    found[place].add(word)
    return found


def _key(name: str) -> str:
    return normalised(without_qualifier(name))
