"""The hooks that a plugin can implement.

All are `firstresult` and coarse: called once a unit or a stage, returning typed handles, so that hot loops
are plain Python. A plugin implements a hook with the marker `encyclo.hookimpl`; it may take fewer arguments
than the hook offers. Which plugin is called is chosen by name. `context` is an `encyclo.types.Context`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from encyclo.schema import Schema
    from encyclo.types import (
        Concept,
        Context,
        Interpreter,
        Model,
        Prompt,
        Samples,
        SampleSet,
        Scores,
        Store,
    )

hookspec = pluggy.HookspecMarker("encyclo")


@hookspec(firstresult=True)
def load_concepts(options: BaseModel | None) -> Iterable[Concept] | None:
    """Yield the concepts of an encyclopedia, in a fixed order, ids unique.

    `options` is the plugin's own options model, filled from the command line.

        @hookimpl
        def load_concepts():
            yield Concept(id="dog", name="dog", definition="a tame animal that barks")
    """


@hookspec(firstresult=True)
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterable[Prompt] | None:
    """Yield about `context.prompts_for(concept.id)` prompts for each concept, concept by concept.

    The same call yields the same prompts, in another process too: draw from `context.random(stage, concept.id)`,
    so that a concept's prompts don't depend on the others. What a model writes may depend on the concepts that are
    asked for together, which are a whole unit's. The span must hold the mention.

        @hookimpl
        def sample_prompts(concepts):
            for concept in concepts:
                yield Prompt(concept.id, f"A {concept.name}", (2, 2 + len(concept.name)), family="a")
    """


@hookspec(firstresult=True)
def load_model(name: str, context: Context) -> Model | None:
    """Return a handle of the model `name` on `context.device`. Weights are loaded on first use.

    @hookimpl
    def load_model(name, context):
        return MyModel(name, device=context.device)
    """


@hookspec(firstresult=True)
def capture_layers(
    prompts: Sequence[Prompt], layers: Sequence[int], pooling: str, context: Context
) -> Iterable[Samples] | None:
    """Yield the prompts' hidden layers in batches, in any order; each batch knows its prompts' positions.

    `layers` are `hidden_states` indices from 0 to `context.model.depth`.

        @hookimpl
        def capture_layers(prompts, layers, context):
            for i, prompt in enumerate(prompts):
                states = context.model.forward([prompt.text], layers)[0]
                yield Samples(np.array([i]), states[-1:], tokens=len(states), tokens_computed=len(states))
    """


@hookspec(firstresult=True)
def check_capture(
    prompts: Sequence[Prompt], layers: Sequence[int], pooling: str, context: Context
) -> dict[str, float] | None:
    """Check the capture on a handful of `prompts` before a run, in about a second (optional).

    Return each check's worst value, for run.json. Raise `encyclo.errors.CaptureError` naming the check and
    both values if one fails: the run then stops.

        @hookimpl
        def check_capture(prompts, layers, context):
            states = context.model.forward([prompts[0].text], layers)[0]
            if not np.isfinite(states).all():
                raise CaptureError(f"{prompts[0].text!r} gives an activation that is not finite.")
            return {"finite": float(np.abs(states).max())}
    """


@hookspec(firstresult=True)
def store_activations(location: Path, schema: Schema) -> Store | None:
    """Return a store that keeps its parts under `location`/parts and its encyclopedia in `location`.

    @hookimpl
    def store_activations(location, schema):
        return MyStore(location, schema)
    """


@hookspec(firstresult=True)
def train_interpreter(
    samples: SampleSet, concepts: Sequence[Concept], context: Context
) -> Interpreter | None:
    """Train on the samples of `Split.TRAIN`, watch `Split.VALIDATION`; touch no other split.

    @hookimpl
    def train_interpreter(samples, concepts, context):
        rows = samples.rows(Split.TRAIN)
        return MyInterpreter([c.id for c in concepts]).fit(samples.read(rows), samples.concept[rows])
    """


@hookspec(firstresult=True)
def load_interpreter(folder: Path, context: Context) -> Interpreter | None:
    """Load what the plugin's interpreter saved into `folder`.

    @hookimpl
    def load_interpreter(folder):
        return MyInterpreter.load(folder)
    """


@hookspec(firstresult=True)
def score_confidence(interpreter: Interpreter, samples: SampleSet, context: Context) -> Scores | None:
    """Say how far each concept's reading can be trusted, from samples that training never saw.

    @hookimpl
    def score_confidence(interpreter, samples):
        rows = samples.rows(Split.CALIBRATION, Split.TEST)
        right = interpreter.read(samples.read(rows)).argmax(1) == samples.concept[rows]
        return my_scores(right, samples.concept[rows])
    """


@hookspec(firstresult=True)
def end_run(metrics: Mapping[str, Any], context: Context) -> str | None:
    """Say something at the end of a run: called for each wrapper that was opted in (optional).

    `metrics` is what metrics.json holds. Return what a person should read after the run's summary.

        @hookimpl
        def end_run(metrics):
            return f"{metrics['capture']['prompts']:,} prompts were captured."
    """
