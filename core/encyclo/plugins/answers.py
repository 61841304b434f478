"""Check what a hook answers, where it is called: `check_answer` has a check for every hook.

An answer that consists of items is checked item by item; a handle is wrapped, and checked at each call of its
methods (`encyclo.plugins.handles`). Every check raises WrongAnswer with the end of a sentence. What needs all
items at once (a repeated id, a prompt without activations) is checked by the step that collects them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from encyclo.plugins.executor_handle import ExecutorHandle
from encyclo.plugins.guards import through
from encyclo.plugins.handles import Handle, InterpreterHandle, ModelHandle, Owner, TextModelHandle
from encyclo.plugins.store_handles import StoreHandle
from encyclo.plugins.values import (
    WrongAnswer,
    check_array,
    check_finite,
    check_json,
    check_text,
    check_whole,
    is_finite,
    shown,
    texts_fault,
    with_article,
)
from encyclo.statistics.confidence import Calibrator, TrainingDistribution
from encyclo.statistics.figures import Calibration
from encyclo.types import Concept, Prompt, Samples, Scores

Arguments = Mapping[str, Any]
"""The arguments of a hook's call, by name."""
CONCEPT_TEXTS = ("id", "name", "definition", "category", "part_of_speech", "broader_name")
_texts_of = attrgetter(*CONCEPT_TEXTS)


def check_answer(hook: str, answer: Any, arguments: Arguments, owner: Owner) -> Any:
    """Return the answer of `hook` as the core uses it. Raises WrongAnswer."""
    if answer is None:
        raise WrongAnswer(returned_none(hook))
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


def returned_none(hook: str) -> str:
    """Return the end of a sentence that says what `hook` must return instead of None."""
    return f"returned None from {hook}, but must return {WANTED[hook]}"


def check_concept(concept: Any) -> Concept:
    """Return a concept whose fields have their types."""
    if not isinstance(concept, Concept):
        raise WrongAnswer(f"gave {with_article(concept)}, but must give a Concept")
    for name in ("aliases", "examples", "held_out_aliases"):
        if not isinstance(several := getattr(concept, name), tuple):
            raise WrongAnswer(
                f"gave the concept {shown(concept.id)} with {with_article(several)} as its {name}, but must "
                "give a tuple of str"
            )
    texts = _texts_of(concept) + concept.aliases + concept.examples + concept.held_out_aliases
    if concept.broader is not None:
        texts += (concept.broader,)
    if fault := texts_fault(texts, CONCEPT_TEXTS):
        raise WrongAnswer(f"gave the concept {shown(concept.id)} {fault}")
    _check_shares(concept)
    _check_spans(concept)
    if not concept.id or not concept.name.strip():
        raise WrongAnswer(
            f"gave the concept {shown(concept.id)} without {'a name' if concept.id else 'an id'}; "
            "give every concept an id and a name"
        )
    if concept.countable is not None and not isinstance(concept.countable, bool):
        raise WrongAnswer(
            f"gave the concept {shown(concept.id)} whose countable is {shown(concept.countable)}, but must be "
            "True, False or None"
        )
    return concept


def _check_shares(concept: Concept) -> None:
    shares = concept.word_shares
    if shares == ():
        return
    numbers = isinstance(shares, tuple) and all(type(share) is float and 0 <= share <= 1 for share in shares)
    if not numbers or len(shares) != 1 + len(concept.aliases):
        raise WrongAnswer(
            f"gave the concept {shown(concept.id)} whose word_shares are {shown(shares)}, not a tuple of floats from "
            "0 to 1, one for the name and one for each alias"
        )


def _check_spans(concept: Concept) -> None:
    spans = concept.example_spans
    if not isinstance(spans, tuple) or len(spans) not in (0, len(concept.examples)):
        raise WrongAnswer(
            f"gave the concept {shown(concept.id)} whose example_spans are {shown(spans)}, not a tuple of one span for "
            "each example"
        )
    for span, example in zip(spans, concept.examples, strict=False):
        if fault := _span_fault(span, example):
            raise WrongAnswer(f"gave the concept {shown(concept.id)} an example {fault}")


def check_prompt(prompt: Any) -> Prompt:
    """Return a prompt whose fields have their types, and whose span covers a mention."""
    if not isinstance(prompt, Prompt):
        raise WrongAnswer(f"gave {with_article(prompt)}, but must give a Prompt")
    text, family = prompt.text, prompt.family
    fault = texts_fault((text, prompt.concept, family), ("text", "concept", "family"))
    if fault is None and not text.strip():
        raise WrongAnswer(
            f"gave an empty prompt for the concept {shown(prompt.concept)}; give a text or leave it out"
        )
    fault = fault or (
        "without a family; name what it was made from, such as its template"
        if not family
        else _span_fault(prompt.span, text)
    )
    if fault:
        raise WrongAnswer(f"gave the prompt {shown(text)} {fault}")
    return prompt


def _span_fault(span: object, text: str) -> str | None:
    """Return why a span covers no mention, as the end of a sentence."""
    if span is None:
        return None
    if not isinstance(span, tuple) or len(span) != 2:
        return f"whose span is {shown(span)}, but must be a tuple of two int, the mention's start and end, or None"
    start, end = span
    for place in span:
        if type(place) is not int:
            check_whole(place, f"gave the prompt {shown(text)} with a span of which a place")
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        return (
            f"with the span ({shown(int(start))}, {shown(int(end))}), which holds no mention; give the mention's "
            "start and end in the text"
        )
    return None


def check_samples(arguments: Arguments, batch: Any) -> Samples:
    """Return a batch of activations, float32, of prompts that were handed in."""
    if not isinstance(batch, Samples):
        raise WrongAnswer(f"gave {with_article(batch)}, but must give Samples")
    prompts, layers, model = arguments["prompts"], arguments["layers"], arguments["context"].model
    try:
        positions = np.asarray(batch.positions)
    except ValueError as error:
        raise WrongAnswer(
            "gave positions that are no list of int; give the index of each row's prompt"
        ) from error
    if positions.ndim != 1 or positions.dtype.kind not in "iu" or len(positions) == 0:
        raise WrongAnswer(
            f"gave positions of the shape {positions.shape} and the dtype {positions.dtype}, but must "
            f"give int from 0 to {len(prompts) - 1} in one dimension, the indices of prompts"
        )
    if not 0 <= positions.min() <= positions.max() < len(prompts):
        raise WrongAnswer(
            f"gave positions from {positions.min()} to {positions.max()}, but must give indices of its prompts, 0 to "
            f"{len(prompts) - 1}"
        )
    shape = (len(positions), len(layers), model.hidden_size)
    activations = check_array(batch.activations, "float32", shape, "gave Samples whose field activations")
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
        check_whole(batch.tokens, "gave Samples whose field tokens"),
        check_whole(batch.tokens_computed, "gave Samples whose field tokens_computed"),
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
            f"returned Scores with low {low[wrong]}, confidence {middle[wrong]} and high {high[wrong]} for a "
            "concept, but must have 0 <= low <= confidence <= high <= 1, or NaN in all three"
        )
    if not isinstance(scores.calibration, Mapping):
        raise WrongAnswer(
            f"returned Scores whose calibration is {with_article(scores.calibration)}, but must be a dict"
        )
    calibration = check_json(scores.calibration, "returned Scores with a calibration")
    for figures in (calibration, *(item for item in calibration.values() if isinstance(item, dict))):
        try:
            Calibration.model_validate(figures)
        except ValueError as error:
            raise WrongAnswer(
                f"returned Scores with a calibration that metrics.json can't hold: {_first(error)}"
            ) from error
    if scores.calibrator is not None:
        check_calibrator(scores.calibrator)
    return dataclasses.replace(scores, confidence=middle, low=low, high=high, calibration=calibration)


def check_calibrator(calibrator: Any) -> None:
    """Check that a scorer's calibrator can be written and read with."""
    if not isinstance(calibrator, Calibrator):
        raise WrongAnswer(
            f"returned Scores whose calibrator is {with_article(calibrator)}, but must be a Calibrator or None"
        )
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
        raise WrongAnswer(
            f"returned a calibrator whose temperature is {calibrator.temperature}, but must be above 0"
        )
    known = calibrator.distribution
    if not isinstance(known, TrainingDistribution):
        raise WrongAnswer(
            f"returned a calibrator whose distribution is {with_article(known)}, but must be a TrainingDistribution"
        )
    mean = check_array(known.mean, "float32", (None, None), "returned a calibrator whose mean")
    std = check_array(known.std, "float32", mean.shape, "returned a calibrator whose std")
    if not (is_finite(mean) and is_finite(std) and (std > 0).all()):
        raise WrongAnswer(
            "returned a calibrator whose mean is not finite, or whose std is not finite and above 0; correct both"
        )


def check_self_test(found: Any, arguments: Arguments) -> dict[str, float]:
    """Return each check's worst value."""
    if not isinstance(found, Mapping):
        raise WrongAnswer(
            f"returned {with_article(found)} from check_capture, but must return {WANTED['check_capture']}"
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


def _executor(hook: str, answer: Any, arguments: Arguments, owner: Owner) -> ExecutorHandle:
    return ExecutorHandle(answer, owner, hook)


def _first(error: ValueError) -> str:
    """Return the first of pydantic's problems as the end of a sentence."""
    first = error.errors()[0]  # type: ignore[attr-defined]
    return f"{'.'.join(map(str, first['loc']))} is {shown(first.get('input'))}, but {_wanted(first['msg'])}"


def _wanted(message: str) -> str:
    """Return what pydantic says of a value as the end of a sentence: `should be …`."""
    message = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return message[:1].lower() + message[1:]


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
    "run_units": _executor,
}
"""Hooks that return an object whose methods are called later."""
VALUES: dict[str, Callable[[Any, Arguments], Any]] = {
    "check_capture": check_self_test,
    "score_confidence": check_scores,
    "end_run": check_remark,
}
WANTED = {hook: f"an iterable of {what}" for hook, (what, _) in ITEMS.items()} | {
    "load_model": "a Model",
    "store_activations": "a Store",
    "train_interpreter": "an Interpreter",
    "load_interpreter": "an Interpreter",
    "run_units": "an Executor",
    "check_capture": "a dict of each check's name and worst value",
    "score_confidence": "Scores",
    "end_run": "a str",
}
"""What each hook returns, for messages."""
