"""The hooks that a plugin can implement.

A plugin implements a hook with the marker `encyclo.hookimpl`, and may take fewer arguments than the hook offers.
The user chooses the plugin by name. `context` is an `encyclo.types.Context`. All hooks are `firstresult` and
coarse: they are called once per unit or stage and return typed handles, so that hot loops are plain Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from encyclo.executors import Executor, Workplace
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
hookimpl = pluggy.HookimplMarker("encyclo")
"""Marks a function as an implementation of one of the hooks below."""


@hookspec(firstresult=True)
def load_concepts(options: BaseModel | None) -> Iterable[Concept] | None:
    """Yield the concepts of an encyclopedia, in a fixed order, with unique ids.

    `options` is the plugin's own options model, filled from the command line.

        @hookimpl
        def load_concepts():
            yield Concept(id="dog", name="dog", definition="a tame animal that barks")
    """


@hookspec(firstresult=True)
def sample_prompts(concepts: Sequence[Concept], stage: int, context: Context) -> Iterable[Prompt] | None:
    """Yield at most `context.prompts_for(concept.id)` prompts for each concept, concept by concept.

    The same call must yield the same prompts, in another process too: draw from
    `context.random(stage, concept.id)`. Then a concept's prompts don't depend on the other concepts of the call. Only
    what a model writes may depend on them: a run always asks for a whole unit. The span must cover the mention.

        @hookimpl
        def sample_prompts(concepts, context):
            for concept in concepts:
                for opening in OPENINGS[: context.prompts_for(concept.id)]:
                    span = (len(opening), len(opening) + len(concept.name))
                    yield Prompt(concept.id, opening + concept.name, span, family=opening.strip())
    """


@hookspec(firstresult=True)
def load_model(name: str, context: Context) -> Model | None:
    """Return the model `name` on `context.device`, as a handle. Load its weights on first use.

    @hookimpl
    def load_model(name, context):
        return MyModel(name, context.device, context.options.dtype)
    """


@hookspec(firstresult=True)
def capture_layers(
    prompts: Sequence[Prompt], layers: Sequence[int], pooling: str, context: Context
) -> Iterable[Samples] | None:
    """Yield the prompts' hidden layers in batches, in any order; each batch has its prompts' positions.

    `layers` are `hidden_states` indices from 0 to `context.model.depth`; `encyclo.pooling` gives the tokens that
    a pooling averages.

        @hookimpl
        def capture_layers(prompts, layers, pooling, context):
            for place, prompt in enumerate(prompts):
                ranges = context.model.tokens(prompt.text)
                special = [found == (0, 0) for found in ranges]
                tokens = list(pooled_tokens(ranges, special, prompt.span, pooling))
                states = context.model.forward([prompt.text], layers)[0]
                pooled = states[tokens].mean(axis=0)
                yield Samples(np.array([place]), pooled[None], tokens=len(states), tokens_computed=len(states))
    """


@hookspec(firstresult=True)
def check_capture(
    prompts: Sequence[Prompt], layers: Sequence[int], pooling: str, context: Context
) -> dict[str, float] | None:
    """Check the capture on a few `prompts` before a run, in about a second (optional).

    Return each check's worst value, for run.json. If a check fails, raise `encyclo.errors.CaptureError` naming
    the check and both values: the run then stops.

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
    """Train on the samples of `Split.TRAIN`, stop by `Split.VALIDATION`; read no other split.

    docs/hooks.md has a complete example, which reads a block of rows at a time.

        @hookimpl
        def train_interpreter(samples, concepts):
            rows = samples.rows(Split.TRAIN)
            return MyInterpreter.fit([c.id for c in concepts], samples.read(rows), samples.concept[rows])
    """


@hookspec(firstresult=True)
def load_interpreter(folder: Path, context: Context) -> Interpreter | None:
    """Load the interpreter that the plugin saved into `folder`, with the options it was trained with.

    @hookimpl
    def load_interpreter(folder):
        return MyInterpreter.load(folder)
    """


@hookspec(firstresult=True)
def score_confidence(interpreter: Interpreter, samples: SampleSet, context: Context) -> Scores | None:
    """Return how far each concept's reading can be trusted, measured on samples that training never saw.

    `context.natural` has sentences by other authors, if there are any. docs/hooks.md has a complete example.

        @hookimpl
        def score_confidence(interpreter, samples):
            rows = samples.named_rows(Split.CALIBRATION, Split.TEST)
            right = interpreter.read(samples.read(rows)).argmax(1) == samples.concept[rows]
            return my_scores(right, samples.concept[rows])
    """


@hookspec(firstresult=True)
def run_units(workplace: Workplace, context: Context) -> Executor | None:
    """Return what does the run's units, wherever its workers are: called once, before the first unit.

    Pickle `workplace` to another process, and call `workplace.worker(report)` there; types are in
    `encyclo.executors`. docs/hooks.md has a complete example.

        @hookimpl
        def run_units(workplace):
            return MyExecutor(workplace)
    """


@hookspec(firstresult=True)
def end_run(metrics: Mapping[str, Any], context: Context) -> str | None:
    """Return a remark at the end of a run: called for each wrapper given by --with (optional).

    `metrics` is the content of metrics.json. The remark is printed after the run's summary.

        @hookimpl
        def end_run(metrics):
            return f"{metrics['capture']['prompts']:,} prompts were captured."
    """
