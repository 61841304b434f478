"""One unit's way: concepts, prompts, activations, half precision, part, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.errors import CaptureError
from encyclo.plugins.validation import with_article
from encyclo.runs.session import Session, Stage
from encyclo.schema import NO_SPAN, Part
from encyclo.storage.ledger import Commit, Ledger, Unit, read_committed
from encyclo.types import Concept, Prompt, Samples, Store


@dataclass(frozen=True)
class Collector:
    """Turns units into committed parts."""

    session: Session
    out: Path
    store: Store
    ledger: Ledger

    def collect(
        self, unit: Unit, stage: Stage, prompts: list[Prompt], advance: Callable[[int], None]
    ) -> Commit:
        """Capture and store one unit's prompts; the commit record is the last thing written."""
        if not prompts:  # nothing new to say of these concepts: recorded, so that it is not asked again
            nothing = Commit(unit.id, stage.number, f"{unit.id}-none", 0, "", "", 0.0, 0, 0)
            self.ledger.commit(nothing)
            return nothing
        begun = time.perf_counter()
        activations, tokens, computed = self.capture(prompts, advance)
        seconds = time.perf_counter() - begun
        part = self._encode(prompts, activations, stage.number)
        with self.session.plugins.blame(self.session.config.store):
            return self.ledger.store(self.store, unit, part, seconds, tokens, computed)

    def self_test(self, prompts: list[Prompt]) -> dict[str, float] | None:
        """Let the capture plugin check itself on these prompts; None where it has no self-test.

        Returns each check's worst value. Raises CaptureError naming the check that failed.
        """
        session, name = self.session, self.session.config.capture
        if not session.plugins.implements(name, "check_capture"):
            return None
        found: dict[str, float] = session.plugins.call(
            "check_capture",
            name,
            prompts=prompts,
            layers=session.schema.layer_index,
            pooling=session.config.pooling,
            context=session.context(name, self.out),
        )
        return found

    def sample(
        self, unit: Unit, stage: Stage, earlier: Sequence[Commit], known: Mapping[str, Any]
    ) -> list[Prompt]:
        """Return the unit's new prompts, concept by concept; refuse one that can't be what it says.

        `known` is what the rounds before found: interpreter, scores, signatures. A sampler repeats itself for
        the same (seed, stage, concept): of a concept that has samples of this stage already, those are asked
        for again, and prompts that are there already are passed over.
        """
        concepts = [self.session.trainable[i] for i in unit.concepts]
        wanted = {c.id: n for c, n in zip(concepts, unit.wanted, strict=True)}
        done = {c.id: n for c, n in zip(concepts, unit.done, strict=True)}
        asked = {key: wanted[key] + done[key] for key in wanted}
        there = self._there(unit, stage, earlier) if any(unit.done) else set()
        left = dict(wanted)
        prompts = []
        for prompt in self.ask(concepts, stage, wanted=asked, **known):
            if done[prompt.concept]:
                if left[prompt.concept] == 0 or (prompt.concept, prompt.text) in there:
                    continue
                left[prompt.concept] -= 1
            prompts.append(prompt)
        return prompts

    def ask(self, concepts: Sequence[Concept], stage: Stage, **context: Any) -> Iterator[Prompt]:
        """Yield what the stage's sampler gives for `concepts`; refuse a prompt that can't be what it says.

        `context` is what the sampler's context says besides the session's. Only a sampler that looks for what
        an interpreter misreads may find nothing for a concept.
        """
        plugins, name = self.session.plugins, stage.sampler
        whole = self.session.context(
            name, self.out, **{"all_concepts": self.session.trainable, "capture": self.quietly, **context}
        )
        given = plugins.call("sample_prompts", name, concepts=concepts, stage=stage.number, context=whole)
        known = {concept.id for concept in concepts}
        missing = set(known)
        for prompt in plugins.iterate(name, given):
            fault = _prompt_fault(prompt, known)
            if fault:
                raise plugins.fault(name, fault)
            missing.discard(prompt.concept)
            yield prompt
        if missing and not plugins.needs_interpreter(name):
            raise plugins.fault(name, f"gave no prompt for the concept {min(missing)!r}")

    def _there(self, unit: Unit, stage: Stage, earlier: Sequence[Commit]) -> set[tuple[str, str]]:
        """Return (concept id, text) of the samples of this stage that the unit's concepts have."""
        own = {index: self.session.concepts[index].id for index in unit.concepts}
        found = set()
        for commit in earlier:
            if commit.stage == stage.number and commit.rows:
                part = read_committed(self.store, commit)
                found |= {
                    (own[index], text)
                    for index, text in zip(part.concept.tolist(), part.prompt, strict=True)
                    if index in own
                }
        return found

    def quietly(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Return the prompts' activations, float32 [n, L, H]: what a sampler's context calls `capture`."""
        return self.capture(list(prompts), lambda _: None)[0]

    def capture(
        self, prompts: list[Prompt], advance: Callable[[int], None]
    ) -> tuple[NDArray[np.float32], int, int]:
        """Return (activations float32 [n, L, H] in the prompts' order, tokens, tokens computed)."""
        session, name = self.session, self.session.config.capture
        schema = session.schema
        batches: Iterable[Samples] = session.plugins.call(
            "capture_layers",
            name,
            prompts=prompts,
            layers=schema.layer_index,
            pooling=session.config.pooling,
            context=session.context(name, self.out),
        )
        shape = (len(prompts), len(schema.layers), schema.hidden_size)
        activations = np.empty(shape, np.float32)
        filled = np.zeros(len(prompts), bool)
        tokens = computed = 0
        for batch in session.plugins.iterate(name, batches):
            if fault := _batch_fault(batch, shape):
                raise session.plugins.fault(name, fault)
            activations[batch.positions] = batch.activations
            filled[batch.positions] = True
            tokens += batch.tokens
            computed += batch.tokens_computed
            advance(len(batch.positions))
        if not filled.all():
            lost = prompts[int(np.flatnonzero(~filled)[0])]
            raise session.plugins.fault(name, f"gave no activations for the prompt {lost.text!r}")
        return activations, tokens, computed

    def _encode(self, prompts: list[Prompt], activations: NDArray[np.float32], stage: int) -> Part:
        try:
            halves, scale = half_precision.encode(activations)
        except ValueError as error:
            sample, layer, _ = np.argwhere(~np.isfinite(activations))[0]
            raise CaptureError(
                f"The activation of the prompt {prompts[sample].text!r} at layer "
                f"{self.session.schema.layers[layer]} is not finite (computed in {self.session.model.dtype}); "
                "use a device or compute type with a wider range."
            ) from error
        place = {concept.id: index for index, concept in enumerate(self.session.concepts)}
        return Part(
            activations=halves,
            scale=scale,
            concept=np.array([place[p.concept] for p in prompts], np.int32),
            stage=np.full(len(prompts), stage, np.int8),
            family=[p.family for p in prompts],
            prompt=[p.text for p in prompts],
            span=np.array([p.span or NO_SPAN for p in prompts], np.int32).reshape(-1, 2),
        )


def _batch_fault(batch: object, shape: tuple[int, int, int]) -> str | None:
    """Return what is wrong with a batch of captured activations, as the end of a sentence, or None."""
    if not isinstance(batch, Samples):
        return f"gave {with_article(batch)} where Samples belong"
    given = getattr(batch.activations, "shape", None)
    positions = np.asarray(batch.positions)
    if given != (len(positions), *shape[1:]):
        return f"gave activations of shape {given}, not ({len(positions)}, {shape[1]}, {shape[2]})"
    if positions.dtype.kind not in "iu" or (
        len(positions) and not 0 <= positions.min() <= positions.max() < shape[0]
    ):
        return f"gave positions that are no places of the {shape[0]} prompts it was handed"
    return None


def _prompt_fault(prompt: object, concepts: Set[str]) -> str | None:
    """Return what is wrong with a sampler's prompt, as the end of a sentence; None where it is right."""
    if not isinstance(prompt, Prompt):
        return f"gave {with_article(prompt)} where a Prompt belongs"
    if prompt.concept not in concepts:
        return f"gave a prompt for {prompt.concept!r}, a concept it was not asked about"
    if not prompt.text.strip():
        return f"gave an empty prompt for {prompt.concept!r}"
    if prompt.span is not None:
        start, end = prompt.span
        if not 0 <= start < end <= len(prompt.text) or not prompt.text[start:end].strip():
            return f"gave the span {prompt.span} for the prompt {prompt.text!r}, which holds no mention there"
    if not prompt.family:
        return f"gave the prompt {prompt.text!r} without a family"
    return None
