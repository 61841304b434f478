"""Check what a hook answers, where it is called: `check_answer` has a check for every hook.

An answer that consists of items is checked item by item; a handle is wrapped, and checked at each call of its
methods (`encyclo.plugins.handles`). Every check raises WrongAnswer with the end of a sentence. What needs all
items at once (a repeated id, a prompt without activations) is checked by the step that collects them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from encyclo.plugins.guards import through
from encyclo.plugins.handles import Handle, InterpreterHandle, ModelHandle, Owner, TextModelHandle
from encyclo.plugins.store_handles import StoreHandle
from encyclo.plugins.values import (
    WrongAnswer,
    check_array,
    check_finite,
    check_json,
    check_storable,
    check_text,
    check_whole,
    is_finite,
    shown,
    with_article,
)
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.statistics.figures import Calibration
from encyclo.types import Concept, Prompt, Samples, Scores

Arguments = Mapping[str, Any]
"""The arguments of a hook's call, by name."""
CONCEPT_TEXTS = ("id", "name", "definition", "category", "part_of_speech", "broader_name")


def check_answer(hook: str, answer: Any, arguments: Arguments, owner: Owner) -> Any:
    """Return the answer of `hook` as the core uses it. Raises WrongAnswer."""
    if answer is None:
        raise WrongAnswer(f"returned nothing from {hook}")
    if hook in ITEMS:
        what, make_check = ITEMS[hook]
        if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
            raise WrongAnswer(
                f"returned {with_article(answer)} from {hook}, but must return an iterable of {what}"
            )
        return through(answer, owner.mark, make_check(arguments))
    if hook in HANDLES:
        return answer if isinstance(answer, Handle) else HANDLES[hook](hook, answer, arguments, owner)
    return VALUES[hook](answer, arguments)


def check_concept(concept: Any) -> Concept:
    """Return a concept whose fields have their types."""
    if not isinstance(concept, Concept):
        raise WrongAnswer(f"gave {with_article(concept)} instead of a Concept")
    known = f"gave the concept {shown(concept.id)}"
    texts = [getattr(concept, name) for name in CONCEPT_TEXTS]
    for name in ("aliases", "examples"):
        several = getattr(concept, name)
        if not isinstance(several, tuple):
            raise WrongAnswer(f"{known} whose {name} are {with_article(several)}, not a tuple of texts")
        texts += several
    if concept.broader is not None:
        texts.append(concept.broader)
    if not all(isinstance(text, str) for text in texts):
        names = (*CONCEPT_TEXTS, *["aliases"] * len(concept.aliases), *["examples"] * len(concept.examples))
        for name, text in zip((*names, "broader"), texts, strict=False):
            check_text(text, f"{known} whose {name}")
    check_storable(texts, f"{known} with a text that")
    if not concept.id or not concept.name.strip():
        raise WrongAnswer(f"{known} without {'a name' if concept.id else 'an id'}")
    if concept.countable is not None and not isinstance(concept.countable, bool):
        raise WrongAnswer(f"{known} whose countable is {shown(concept.countable)}, not a bool or None")
    return concept


def check_prompt(prompt: Any) -> Prompt:
    """Return a prompt whose fields have their types, and whose span covers a mention."""
    if not isinstance(prompt, Prompt):
        raise WrongAnswer(f"gave {with_article(prompt)} instead of a Prompt")
    text = check_text(prompt.text, "gave a prompt whose text")
    known = f"gave the prompt {shown(text)}"
    check_text(prompt.concept, f"{known} whose concept")
    check_text(prompt.family, f"{known} whose family")
    if not text.strip():
        raise WrongAnswer(f"gave an empty prompt for {shown(prompt.concept)}")
    if not prompt.family:
        raise WrongAnswer(f"{known} without a family")
    if prompt.span is not None:
        if not isinstance(prompt.span, tuple) or len(prompt.span) != 2:
            raise WrongAnswer(f"{known} whose span is {shown(prompt.span)}, not two places in the text")
        start, end = (check_whole(place, f"{known} with a span of which a place") for place in prompt.span)
        if not start < end <= len(text) or not text[start:end].strip():
            raise WrongAnswer(f"{known} with the span ({start}, {end}), which holds no mention")
    return prompt


def check_samples(arguments: Arguments, batch: Any) -> Samples:
    """Return a batch of activations, float32, of prompts that were handed in."""
    if not isinstance(batch, Samples):
        raise WrongAnswer(f"gave {with_article(batch)} instead of Samples")
    prompts, layers, model = arguments["prompts"], arguments["layers"], arguments["context"].model
    try:
        positions = np.asarray(batch.positions)
    except ValueError as error:
        raise WrongAnswer("gave positions that are no list of indices") from error
    if positions.ndim != 1 or positions.dtype.kind not in "iu" or len(positions) == 0:
        raise WrongAnswer(
            f"gave positions of the shape {positions.shape} and the type {positions.dtype} instead of indices "
            f"of the {len(prompts)} prompts"
        )
    if not 0 <= positions.min() <= positions.max() < len(prompts):
        raise WrongAnswer(f"gave positions that are no indices of the {len(prompts)} prompts it was handed")
    shape = (len(positions), len(layers), model.hidden_size)
    activations = check_array(batch.activations, "float32", shape, "gave a batch whose activations")
    if not is_finite(activations):
        row, place, _ = np.argwhere(~np.isfinite(activations))[0]
        raise WrongAnswer(
            f"gave an activation of the prompt {shown(prompts[positions[row]].text)} at the hidden state "
            f"{layers[place]} that is not finite (computed in {model.dtype}); use a device or compute type with "
            "a wider range"
        )
    return Samples(
        positions.astype(np.int64, copy=False),
        activations,
        check_whole(batch.tokens, "gave a batch whose tokens"),
        check_whole(batch.tokens_computed, "gave a batch whose tokens_computed"),
    )


def check_scores(scores: Any, arguments: Arguments) -> Scores:
    """Return scores: probabilities inside their intervals or NaN, a calibration for JSON, a calibrator."""
    if not isinstance(scores, Scores):
        raise WrongAnswer(f"returned {with_article(scores)} from score_confidence, but must return Scores")
    shape = (len(arguments["interpreter"].concepts),)
    low, middle, high = (
        check_array(getattr(scores, name), "float32", shape, f"returned Scores whose {name}")
        for name in ("low", "confidence", "high")
    )
    unknown = np.isnan(middle)
    inside = (low >= 0) & (low <= middle) & (middle <= high) & (high <= 1)
    if not (inside | (unknown & np.isnan(low) & np.isnan(high))).all():
        wrong = int(np.flatnonzero(~inside)[0])
        raise WrongAnswer(
            f"returned Scores whose confidence {middle[wrong]} with the interval {low[wrong]} to {high[wrong]} is "
            "neither a probability inside its interval nor NaN as a whole"
        )
    if not isinstance(scores.calibration, Mapping):
        raise WrongAnswer(
            f"returned Scores whose calibration is {with_article(scores.calibration)}, not a mapping"
        )
    calibration = check_json(scores.calibration, "returned Scores with a calibration")
    for figures in (calibration, *(item for item in calibration.values() if isinstance(item, dict))):
        try:
            Calibration.model_validate(figures)
        except ValueError as error:
            raise WrongAnswer(
                f"returned Scores whose calibration does not fit metrics.json: {_first(error)}"
            ) from error
    if scores.calibrator is not None:
        check_calibrator(scores.calibrator)
    return dataclasses.replace(scores, confidence=middle, low=low, high=high, calibration=calibration)


def check_calibrator(calibrator: Any) -> None:
    """Check that a scorer's calibrator can be written and read with."""
    if not isinstance(calibrator, Calibrator):
        raise WrongAnswer(f"returned Scores whose calibrator is {with_article(calibrator)}, not a Calibrator")
    for name in (
        "temperature",
        "score_strange",
        "score_known",
        "distance_known",
        "distance_strange",
        "level",
    ):
        check_finite(getattr(calibrator, name), f"returned a calibrator whose {name}")
    if calibrator.conformal != np.inf:
        check_finite(calibrator.conformal, "returned a calibrator whose conformal")
    check_whole(calibrator.n, "returned a calibrator whose n")
    check_text(calibrator.fitted_on, "returned a calibrator whose fitted_on")
    if not calibrator.temperature > 0:
        raise WrongAnswer(f"returned a calibrator whose temperature is {calibrator.temperature}, not above 0")
    known = calibrator.distribution
    if not isinstance(known, TrainingDistribution):
        raise WrongAnswer(f"returned a calibrator whose distribution is {with_article(known)}")
    mean = check_array(known.mean, "float32", (None, None), "returned a calibrator whose mean")
    std = check_array(known.std, "float32", mean.shape, "returned a calibrator whose std")
    if not (is_finite(mean) and is_finite(std) and (std > 0).all()):
        raise WrongAnswer("returned a calibrator whose mean or std has an invalid number")


def check_self_test(found: Any, arguments: Arguments) -> dict[str, float]:
    """Return each check's worst value."""
    if not isinstance(found, Mapping):
        raise WrongAnswer(
            f"returned {with_article(found)} from check_capture, but must return each check's worst value"
        )
    plain = check_json(found, "returned a self-test")
    return {key: check_finite(value, f"returned a self-test whose {key!r}") for key, value in plain.items()}


def check_remark(remark: Any, arguments: Arguments) -> str:
    """Return the remark that a wrapper makes at the end of a run."""
    return check_text(remark, "returned from end_run a remark that")


def _model(hook: str, answer: Any, arguments: Arguments, owner: Owner) -> ModelHandle:
    kind = TextModelHandle if hasattr(answer, "generate") else ModelHandle
    return kind(answer, owner)


def _interpreter(hook: str, answer: Any, arguments: Arguments, owner: Owner) -> InterpreterHandle:
    return InterpreterHandle(answer, owner, hook)


def _store(hook: str, answer: Any, arguments: Arguments, owner: Owner) -> StoreHandle:
    return StoreHandle(answer, owner, arguments["location"], arguments["schema"])


def _first(error: ValueError) -> str:
    """Return the first of pydantic's problems as the end of a sentence."""
    first = error.errors()[0]  # type: ignore[attr-defined]
    return f"{'.'.join(map(str, first['loc']))} is {shown(first.get('input'))}"


ITEMS: dict[str, tuple[str, Callable[[Arguments], Callable[[Any], Any]]]] = {
    "load_concepts": ("Concepts", lambda arguments: check_concept),
    "sample_prompts": ("Prompts", lambda arguments: check_prompt),
    "capture_layers": ("Samples", lambda arguments: partial(check_samples, arguments)),
}
"""Hooks that return an iterable: what it consists of, and what checks an item of a call with these arguments."""
HANDLES: dict[str, Callable[[str, Any, Arguments, Owner], Handle]] = {
    "load_model": _model,
    "store_activations": _store,
    "train_interpreter": _interpreter,
    "load_interpreter": _interpreter,
}
"""Hooks that return an object whose methods are called later."""
VALUES: dict[str, Callable[[Any, Arguments], Any]] = {
    "check_capture": check_self_test,
    "score_confidence": check_scores,
    "end_run": check_remark,
}
