"""Collect one unit's samples: sample prompts, capture activations, encode, store a part, commit.

UnitSampler.sample ── ask_sampler     the stage's sampler → checked prompts
collect_unit ── OpenRun.capture       prompts → activations
             └─ Ledger.store          the part, then its commit record
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo import half_precision
from encyclo.errors import UsageError
from encyclo.plugins.answers import check_prompt
from encyclo.plugins.values import shown
from encyclo.runs.directory import RunDirectory
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Session, Stage
from encyclo.schema import NO_SPAN, Part
from encyclo.storage.ledger import Commit, Unit, read_committed
from encyclo.types import Concept, Prompt

CapturePrompts = Callable[[Sequence[Prompt]], NDArray[np.float32]]
SURPLUS = 1_000
"""A sampler may give this many prompts more for a concept than it was asked for; they are ignored."""


def collect_unit(run: OpenRun, unit: Unit, prompts: list[Prompt], advance: Callable[[int], None]) -> Commit:
    """Capture and store one unit's prompts; the commit record is written last."""
    if not prompts:  # recorded, so that a resumed run doesn't ask the sampler again
        nothing = Commit.of_nothing(unit)
        run.ledger.commit(nothing)
        return nothing
    begun = time.perf_counter()
    captured = run.capture(prompts, advance)
    seconds = time.perf_counter() - begun
    part = encode(run.session, prompts, captured.activations, unit.stage)
    with run.session.plugins.blame(run.session.config.store):
        return run.ledger.store(run.store, unit, part, seconds, captured.tokens, captured.tokens_computed)


def self_test(run: OpenRun, prompts: list[Prompt]) -> dict[str, float] | None:
    """Let the capture plugin check itself on these prompts; None if it has no self-test.

    Returns each check's worst value. Raises CaptureError naming the check that failed.
    """
    session, name = run.session, run.session.config.capture
    if not session.plugins.implements(name, "check_capture"):
        return None
    with run.handed(prompts) as (given, pooling):
        found: dict[str, float] = session.plugins.call(
            "check_capture",
            name,
            prompts=given,
            layers=session.schema.layer_index,
            pooling=pooling,
            context=run.capture_context(),
        )
    return found


class UnitSampler:
    """Asks one sampler for prompts, unit by unit.

    `earlier` are the commits of the earlier rounds, `known` their interpreter, scores and signatures.
    """

    def __init__(
        self, run: OpenRun, stage: Stage, earlier: Sequence[Commit], known: Mapping[str, Any]
    ) -> None:
        self.run, self.stage, self.earlier, self.known = run, stage, earlier, known
        self._reported = False

    def sample(self, unit: Unit) -> list[Prompt]:
        """Return the unit's new prompts, concept by concept, at most the wanted number for each.

        The sampler is asked for the whole unit in one call, and the same call gives the same prompts. So a
        resumed run samples a unit as an uninterrupted one does. A concept that already has samples of the sampler
        is asked for those too, and the prompts that it already has are skipped; sentences that a model writes
        may differ from the earlier ones, since other concepts are asked for with it.
        """
        trainable = self.run.session.trainable
        concepts = [trainable[i] for i in unit.concepts]
        left = {c.id: n for c, n in zip(concepts, unit.wanted, strict=True)}
        done = {c.id: n for c, n in zip(concepts, unit.done, strict=True)}
        asked = {key: left[key] + done[key] for key in left}
        given, remaining = dict.fromkeys(left, 0), sum(left.values())
        there = self._committed(unit) if any(unit.done) else set()
        prompts = []
        with closing(ask_sampler(self.run, concepts, self.stage, wanted=asked, **self.known)) as sampled:
            for prompt in sampled:
                given[prompt.concept] += 1
                if given[prompt.concept] > asked[prompt.concept]:
                    self._report(prompt.concept)
                if remaining == 0:
                    break
                if left[prompt.concept] and (prompt.concept, prompt.text) not in there:
                    left[prompt.concept] -= 1
                    remaining -= 1
                    prompts.append(prompt)
        return prompts

    def _report(self, concept: str) -> None:
        """Report once that the sampler gives too many prompts; they are ignored, so the budget still holds."""
        if not self._reported:
            self.run.session.progress.stage(
                f"The sampler {self.stage.sampler} gives more prompts than it was asked for (first for the "
                f"concept {concept!r}); the extra ones are ignored"
            )
            self._reported = True

    def _committed(self, unit: Unit) -> set[tuple[str, str]]:
        """Return (concept id, text) of the sampler's committed samples of the unit's concepts."""
        own = {index: self.run.session.concepts[index].id for index in unit.concepts}
        found = set()
        for commit in self.earlier:
            if (commit.stage, commit.sampler) == (unit.stage, unit.sampler) and commit.rows:
                part = read_committed(self.run.store, commit)
                found |= {
                    (own[index], text)
                    for index, text in zip(part.concept.tolist(), part.prompt, strict=True)
                    if index in own
                }
        return found


def require_prompts(session: Session) -> None:
    """Raise UsageError if the first stage leaves a concept without a prompt, or its first sampler has none at all.

    Only samplers that may skip a concept are asked, each for one prompt of a concept; any other has one for each.
    """
    first = [stage for stage in session.stages if stage.number == session.stages[0].number]
    skipping = list(takewhile(session.may_skip, first))
    missing = session.trainable
    for stage in skipping:
        left = missing if session.looks(stage) else _without_prompt(session, stage, missing)
        if stage is first[0] and len(left) == len(missing):
            break
        missing = left
    else:
        if not missing or len(skipping) < len(first):
            return
    raise UsageError(
        f"The first stage ({', '.join(stage.sampler for stage in skipping)}) has no prompt for {len(missing):,} of "
        f"{len(session.concepts):,} concepts, such as {shown(missing[0].name)}; name a sampler before it that has "
        "prompts for all of them, such as --sampler templates, or leave these concepts out of the list."
    )


def _without_prompt(session: Session, stage: Stage, concepts: list[Concept]) -> list[Concept]:
    """Return the concepts for which a sampler has no prompt."""
    with TemporaryDirectory() as folder:  # the sampler's own files are deleted with it
        run = OpenRun.of(session, RunDirectory(Path(folder), {}))
        wanted = {concept.id: 1 for concept in concepts}
        given = {prompt.concept for prompt in ask_sampler(run, concepts, stage, wanted=wanted)}
    return [concept for concept in concepts if concept.id not in given]


def ask_sampler(
    run: OpenRun, concepts: Sequence[Concept], stage: Stage, **context: Any
) -> Generator[Prompt, None, None]:
    """Yield the prompts of the stage's sampler for `concepts`, checked. Raises PluginError for a faulty one.

    `context` is added to the session's context. Only a sampler that needs an interpreter or is partial may give no
    prompt for a concept. One that gives more than SURPLUS prompts too many for a concept would perhaps never end.
    """

    session, plugins, name = run.session, run.session.plugins, stage.sampler
    read: CapturePrompts = context.pop("capture", lambda prompts: run.capture(prompts).activations)

    def capture(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        return read([check_prompt(prompt) for prompt in prompts])

    whole = run.context(
        name, all_concepts=session.trainable, capture=capture, prompts_wanted=stage.usual, **context
    )
    answer = plugins.call("sample_prompts", name, concepts=concepts, stage=stage.number, context=whole)
    given = {concept.id: 0 for concept in concepts}
    with closing(plugins.iterate(name, answer)) as prompts:
        for prompt in prompts:
            if prompt.concept not in given:
                raise plugins.fault(
                    name,
                    f"gave a prompt for {shown(prompt.concept)}, a concept it was not asked about; leave it out",
                )
            given[prompt.concept] += 1
            if given[prompt.concept] > (wanted := whole.prompts_for(prompt.concept)) + SURPLUS:
                raise plugins.fault(
                    name,
                    f"gave more than {wanted + SURPLUS:,} prompts for the concept {shown(prompt.concept)}, "
                    f"of which {wanted:,} were asked for",
                )
            yield prompt
    missing = [concept for concept, number in given.items() if number == 0]
    if missing and not session.may_skip(stage):
        raise plugins.fault(
            name, f"gave no prompt for the concept {shown(min(missing))}; give at least one for each"
        )


def encode(session: Session, prompts: list[Prompt], activations: NDArray[np.float32], stage: int) -> Part:
    """Return captured prompts as a part."""
    halves, scale = half_precision.encode(activations)
    return Part(
        activations=halves,
        scale=scale,
        concept=np.array([session.place_of[p.concept] for p in prompts], np.int32),
        stage=np.full(len(prompts), stage, np.int8),
        family=[p.family for p in prompts],
        prompt=[p.text for p in prompts],
        span=np.array([p.span or NO_SPAN for p in prompts], np.int32).reshape(-1, 2),
    )
