"""The contract of the hook `sample_prompts`.

    from encyclo.testing.samplers import SamplerContract

    class TestMine(SamplerContract):
        plugin = "mine"

A sampler that needs a model overrides `context`.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from encyclo.english import find_mention
from encyclo.plugins.manager import Plugins
from encyclo.testing.contract import require
from encyclo.testing.fixtures.planted import NAMES, PlantedConcepts
from encyclo.testing.hooked import HookContract, in_another_process
from encyclo.types import Concept, Prompt


class SamplerContract(HookContract):
    """The contract of samplers; subclass it and name the plugin."""

    hooks: ClassVar[tuple[str, ...]] = ("sample_prompts",)
    wanted: ClassVar[int] = 6
    """The number of prompts per concept in the checks."""
    prompts: ClassVar[int] = 50_000
    """The number of prompts in the memory check; a thorough check takes 1,000,000."""

    def sample(self, concepts: Sequence[Concept], folder: Path, **more: Any) -> Iterator[Prompt]:
        """Return the plugin's prompts, as a new run gets them."""
        plugins = Plugins()
        context = self.context(folder, **{"prompts_wanted": self.wanted, **more})
        found = plugins.call(
            "sample_prompts",
            self.plugin,
            concepts=concepts,
            stage=plugins.traits(self.plugin).stage,
            context=context,
        )
        return plugins.iterate(self.plugin, found)

    def is_mention(self, text: str, concept: Concept) -> bool:
        """Return whether `text` is a form of the concept's name or of an alias."""
        return any(is_form(text, name) for name in (concept.name, *concept.aliases))

    def check_every_concept_has_prompts(self, folder: Path) -> None:
        """Each concept gets at least one prompt and at most the wanted number, concept by concept.

        A partial sampler may give no prompt for some concepts.
        """
        concepts = list(PlantedConcepts(len(NAMES)))
        prompts = list(self.sample(concepts, folder))
        require(all(isinstance(p, Prompt) for p in prompts), "It gave something that is not a Prompt.")
        count = Counter(p.concept for p in prompts)
        require(bool(count), "It gave no prompt at all.")
        missing = {c.id for c in concepts} - set(count)
        require(
            len(count) + len(missing) == len(concepts)
            and (not missing or Plugins().traits(self.plugin).partial),
            "It left out a concept, or made one up.",
        )
        concept, given = count.most_common(1)[0]
        require(given <= self.wanted, f"{concept!r} has {given} prompts, {self.wanted} were wanted.")
        order = list(dict.fromkeys(p.concept for p in prompts))
        runs = 1 + sum(a.concept != b.concept for a, b in pairwise(prompts))
        require(
            order == [c.id for c in concepts if c.id in count] and runs == len(order),
            "Not concept by concept, in order.",
        )

    def check_gives_no_more_than_a_concept_was_asked_for(self, folder: Path) -> None:
        """If the run wants a different number for each concept (`context.prompts_for`), none gets more."""
        concepts = list(PlantedConcepts(len(NAMES)))
        wanted = {concept.id: 1 + number % self.wanted for number, concept in enumerate(concepts)}
        count = Counter(p.concept for p in self.sample(concepts, folder, wanted=wanted))
        for concept in concepts:
            given, asked = count[concept.id], wanted[concept.id]
            require(
                given <= asked,
                f"{concept.id!r} has {given} prompts, {asked} were wanted; ask context.prompts_for(concept.id).",
            )

    def check_no_prompt_is_repeated(self, folder: Path) -> None:
        """A concept's prompts differ from each other, also if many are wanted."""
        prompts = Counter(
            (p.concept, p.text) for p in self.sample(PlantedConcepts(28), folder, prompts_wanted=60)
        )
        (concept, text), times = prompts.most_common(1)[0]
        require(times == 1, f"{concept!r} has the prompt {text!r} {times} times.")

    def check_spans_match_the_mention(self, folder: Path) -> None:
        """A span covers the concept's name, inflected or not, without blanks; None if the text doesn't name it."""
        concepts = {c.id: c for c in PlantedConcepts(len(NAMES))}
        for prompt in self.sample(list(concepts.values()), folder, prompts_wanted=30):
            concept, text = concepts[prompt.concept], prompt.text
            if prompt.span is None:
                named = f" {concept.name.casefold()} " in f" {text.casefold()} "
                require(not named, f"{text!r} names {concept.name!r} and has no span.")
                continue
            start, end = prompt.span
            require(0 <= start < end <= len(text), f"The span {prompt.span} is outside {text!r}.")
            mention = text[start:end]
            require(
                self.is_mention(mention, concept),
                f"The span of {text!r} covers {mention!r}, which is not a form of {concept.name!r}.",
            )

    def check_texts_are_clean(self, folder: Path) -> None:
        """Every text is valid Unicode and not blank, and has no blank at its start, no NUL and no open slot."""
        for prompt in self.sample(PlantedConcepts(len(NAMES)), folder, prompts_wanted=30):
            text = prompt.text
            require(
                text.strip() and text[0] == text.lstrip()[0], f"{text!r} is empty or begins with a blank."
            )
            require(all(ord(c) >= 32 or c in "\n\t" for c in text), f"{text!r} holds a control character.")
            text.encode()
            require("{" not in text and "}" not in text, f"{text!r} has an open slot.")

    def check_families_are_shared(self, folder: Path) -> None:
        """A family is a template or generator, not one concept's: whole families are held out."""
        prompts = list(self.sample(PlantedConcepts(3 * len(NAMES)), folder))
        require(all(isinstance(p.family, str) and p.family for p in prompts), "A prompt has no family.")
        owners: dict[str, set[str]] = {}
        for prompt in prompts:
            owners.setdefault(prompt.family, set()).add(prompt.concept)
        mean = sum(map(len, owners.values())) / len(owners)
        require(
            mean >= 2, f"{len(owners)} families for {3 * len(NAMES)} concepts: concepts must share families."
        )

    def check_is_the_same_for_a_seed(self, folder: Path) -> None:
        """The prompts of a seed are the same when drawn again, and in another process."""
        first = self._digest(folder)
        require(self._digest(folder) == first, "Drawn again, the prompts of one seed differ.")
        if type(self).context is not HookContract.context:
            return  # another process doesn't have this context
        code = (
            "import sys, json, pathlib; from encyclo.testing.samplers import SamplerContract as C; "
            "c = type('Named', (C,), {'plugin': sys.argv[1], 'options': json.loads(sys.argv[2])})(); "
            "c.wanted = int(sys.argv[4]); print(c._digest(pathlib.Path(sys.argv[3])))"
        )
        known = (self.plugin, json.dumps(dict(self.options)), str(folder), str(self.wanted))
        require(
            in_another_process(code, *known) == first, "In another process the prompts of one seed differ."
        )

    def check_does_not_depend_on_other_concepts(self, folder: Path) -> None:
        """A concept's prompts are the same alone, among others, and in any order of concepts.

        Sentences that a model writes may differ; the contract's context has no model.
        """
        concepts = list(PlantedConcepts(len(NAMES)))
        everything = by_concept(self.sample(concepts, folder))
        require(by_concept(self.sample(concepts[::-1], folder)) == everything, "They depend on the order.")
        for concept in concepts[::5]:
            alone = by_concept(self.sample([concept], folder))[concept.id]
            require(alone == everything[concept.id], f"The prompts of {concept.name!r} alone are different.")

    def check_draws_from_the_context_alone(self, folder: Path) -> None:
        """It neither depends on nor changes Python's and numpy's global random generators."""
        random.seed(1)
        np.random.seed(1)
        state = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
        first = self._digest(folder)
        after = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
        require(
            state == after, "It draws from a global random generator; use context.random(stage, concept.id)."
        )
        random.seed(2)
        np.random.seed(2)
        require(self._digest(folder) == first, "A global random generator's seed changes the prompts.")

    def check_examples_are_never_used(self, folder: Path) -> None:
        """A concept's `examples` are for evaluation only: no prompt contains one."""
        concepts = {c.id: c for c in PlantedConcepts(len(NAMES))}
        for prompt in self.sample(list(concepts.values()), folder, prompts_wanted=30):
            used = [e for e in concepts[prompt.concept].examples if e in prompt.text or prompt.text in e]
            used = [e for e in used if e in prompt.text or len(prompt.text.split()) > 3]
            require(not used, f"The prompt {prompt.text!r} is an example, kept for evaluation.")

    def check_is_lazy(self, folder: Path) -> None:
        """The first prompt comes after at most a tenth of 20,000 concepts have been read."""
        concepts = PlantedConcepts(20_000)
        next(self.sample(concepts, folder))
        require(
            concepts.furthest < 2_000,
            f"{concepts.furthest + 1:,} of 20,000 concepts were read for one prompt.",
        )

    def check_memory_is_flat(self, folder: Path) -> None:
        """Prompts are not kept: the number of objects in memory doesn't grow with them."""
        per_concept = len({p.text for p in self.sample(PlantedConcepts(1), folder)})
        concepts = PlantedConcepts(self.prompts)
        drawn, early, objects = 0, 0, 0
        for prompt in self.sample(concepts, folder):
            drawn += 1
            if drawn == self.prompts // 5:
                gc.collect()
                early = sys.getallocatedblocks()
            if drawn == self.prompts:
                del prompt
                gc.collect()
                objects = sys.getallocatedblocks() - early
                break
        require(drawn == self.prompts, f"It ended after {drawn:,} prompts, about {per_concept} a concept.")
        require(
            objects < self.prompts // 20,
            f"{objects:,} more objects were in memory after {self.prompts:,} prompts than after a fifth of them.",
        )

    def _digest(self, folder: Path) -> str:
        prompts = self.sample(PlantedConcepts(len(NAMES)), folder)
        text = json.dumps([[p.concept, p.text, p.span, p.family] for p in prompts])
        return hashlib.sha256(text.encode()).hexdigest()


def by_concept(prompts: Iterator[Prompt]) -> dict[str, list[Prompt]]:
    """Return each concept's prompts, in their order."""
    found: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        found.setdefault(prompt.concept, []).append(prompt)
    return found


def is_form(text: str, name: str) -> bool:
    """Return whether `text` is `name` without its qualifier, capitalised or inflected, as any part of speech."""
    if text.casefold() == name.casefold():
        return True
    as_each = (Concept(name, name, part_of_speech=part) for part in ("noun", "verb", "adjective", "adverb"))
    whole = (0, len(text))
    return any(find_mention(text, concept) == whole for concept in as_each)
