"""One unit's way: concepts, prompts, activations, half precision, part, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encyclo import codec
from encyclo.errors import CaptureError
from encyclo.ledger import Commit, Ledger, Unit
from encyclo.schema import NO_SPAN, Part
from encyclo.session import Session, Stage
from encyclo.types import Context, Prompt, Samples, Store


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
        begun = time.perf_counter()
        activations, tokens, computed = self.capture(prompts, advance)
        seconds = time.perf_counter() - begun
        part = self._encode(prompts, activations, stage.number)
        attempt, name = self.ledger.new_attempt(unit)
        with self.session.plugins.blame(self.session.config.store):
            self.store.write_part(name, part)
        commit = Commit(
            unit.id, stage.number, name, len(part), part.checksum(), attempt, seconds, tokens, computed
        )
        self.ledger.commit(commit)
        return commit

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

    def sample(self, unit: Unit, stage: Stage, context: Context) -> list[Prompt]:
        """Return the unit's prompts, concept by concept; refuse one that can't be what it says."""
        plugins, name = self.session.plugins, stage.sampler
        concepts = [self.session.trainable[i] for i in unit.concepts]
        given = plugins.call("sample_prompts", name, concepts=concepts, stage=stage.number, context=context)
        missing = {concept.id for concept in concepts}
        known = frozenset(missing)
        prompts = []
        for prompt in plugins.iterate(name, given):
            fault = _prompt_fault(prompt, known)
            if fault:
                raise plugins.fault(name, fault)
            missing.discard(prompt.concept)
            prompts.append(prompt)
        if missing:
            raise plugins.fault(name, f"gave no prompt for the concept {min(missing)!r}")
        return prompts

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
            if batch.activations.shape != (len(batch.positions), *shape[1:]):
                raise session.plugins.fault(
                    name,
                    f"gave activations of shape {batch.activations.shape}, not (n, {shape[1]}, {shape[2]})",
                )
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
            halves, scale = codec.encode(activations)
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


def _prompt_fault(prompt: object, concepts: frozenset[str]) -> str | None:
    """Return what is wrong with a sampler's prompt, as the end of a sentence; None where it is right."""
    if not isinstance(prompt, Prompt):
        return f"gave a {type(prompt).__name__} where a Prompt belongs"
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
