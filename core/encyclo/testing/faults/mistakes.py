"""The mistakes that a plugin can make, by hook: `MISTAKES`. See `encyclo.testing.faults.evil_plugins`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.executors import UnitReceipt
from encyclo.testing.faults.evil_plugins import (
    ERRORS,
    Mistake,
    Rude,
    Spoil,
    always,
    at_the_end,
    attribute,
    attribute_of,
    breaking_off,
    broken_property,
    endless,
    field,
    field_of,
    first,
    junk,
    method,
    method_raising,
    mistakes,
    of_numbers,
    of_texts,
    raising,
)
from encyclo.testing.faults.store_mistakes import of_a_store, of_a_store_that_finishes
from encyclo.types import Concept

NAN, INFINITE = float("nan"), float("inf")


def _concepts() -> dict[str, Spoil]:
    several: dict[str, Any] = {
        "a text": "hound", "a list": ["hound"], "nothing": None, "an iterator": itertools.repeat("hound"),
        "numbers": (5,), "texts with NUL": ("a\0",),
    }  # fmt: skip
    return {
        **junk(),
        **of_texts("definition"),
        "id is a list": first(id=["dog"]),
        "id is empty": first(id=""),
        "id is NaN": first(id=NAN),
        "name is blank": first(name=" "),
        "name is a number": first(name=5),
        "category is nothing": first(category=None),
        "part_of_speech is a number": first(part_of_speech=5),
        "broader is a list": first(broader=["dog"]),
        "broader_name is nothing": first(broader_name=None),
        "countable is a text": first(countable="yes"),
        **{f"aliases are {words}": first(aliases=value) for words, value in several.items()},
        "word_shares are a list": first(word_shares=[1.0]),
        "word_shares are too many": first(word_shares=(0.5,) * 99),
        "a word share is above 1": first(word_shares=(1.5,)),
        "a word share is not a number": first(word_shares=(NAN,)),
        "a word share is a text": first(word_shares=("all",)),
        **{f"examples are {words}": first(examples=value) for words, value in several.items()},
        **{f"held-out aliases are {w}": first(held_out_aliases=value) for w, value in several.items()},
        "example_spans are a list": first(examples=("A dog.",), example_spans=[(2, 5)]),
        "example_spans are too many": first(examples=("A dog.",), example_spans=((2, 5), None)),
        "an example's span is beyond it": first(examples=("A dog.",), example_spans=((2, 50),)),
        "an example's span is a text": first(examples=("A dog.",), example_spans=("25",)),
        "an id comes twice": lambda good: [*good, good[0]],
        "one is no Concept": lambda good: [good[0], "dog"],
        "one lacks its fields": lambda good: [Concept.__new__(Concept)],
        "breaks off": breaking_off(ValueError("no more")),
        "breaks off with GeneratorExit": breaking_off(GeneratorExit()),
        "exits on the way": breaking_off(SystemExit(0)),
        **{words: raising(error) for words, error in ERRORS.items()},
    }


def _prompts() -> dict[str, Spoil]:
    spans: dict[str, Any] = {
        "texts": ("0", "2"), "one number": (2,), "floats": (0.0, 2.0), "a list": [0, 2], "a number": 3, "empty": (2, 2),
        "negative": (-1, 2), "beyond the text": (0, 10**30), "falling": (3, 1), "nothing twice": (None, None),
        "NaN": (NAN, 3), "a blank": (1, 2),
    }  # fmt: skip
    return {
        **junk(),
        **of_texts("text"),
        **of_texts("family"),
        **{f"span is {words}": first(span=value) for words, value in spans.items()},
        "text is empty": first(text=""),
        "family is empty": first(family=""),
        "concept is a list": first(concept=["c0"]),
        "concept is nothing": first(concept=None),
        "concept is another": first(concept="elsewhere"),
        "one is no Prompt": lambda good: [good[0], good[0].text],
        "nothing for a concept": lambda good: [p for p in good if p.concept != "c0"],
        "nothing at all": always([]),
        "never ends": endless,
        "breaks off": breaking_off(ValueError("no more")),
        "breaks off rudely": breaking_off(Rude("no more")),
        "raises when it is closed": at_the_end(ValueError("not yet")),
        "exits when it is closed": at_the_end(SystemExit(0)),
        "raises what is no Exception": raising(Rude("out of my way")),
    }


def _samples() -> dict[str, Spoil]:
    def values(change: Any) -> Spoil:
        return lambda good: [replace(good[0], activations=change(good[0].activations.copy()))]

    def with_one(value: float) -> Any:
        def change(activations: Any) -> Any:
            activations[-1, 0, 0] = value
            return activations

        return change

    def positions(change: Any) -> Spoil:
        return lambda good: [replace(good[0], positions=change(good[0].positions))]

    def empty(good: Any) -> Any:
        return itertools.repeat(replace(good[0], positions=np.empty(0, int), activations=np.empty((0, 2, 8))))

    return {
        **junk(),
        **of_numbers("tokens", first),
        **of_numbers("tokens_computed", first),
        "activations are NaN": values(with_one(NAN)),
        "activations are infinite": values(with_one(INFINITE)),
        "activations overflow": values(lambda a: a.astype(np.float64) + 1e300),
        "activations are a list": values(lambda a: a.tolist()),
        "activations are nothing": values(always(None)),
        "activations are objects": values(lambda a: a.astype(object)),
        "activations are complex": values(lambda a: a.astype(np.complex64)),
        "activations are texts": values(lambda a: a.astype(str)),
        "activations lack a layer": values(lambda a: a[:, :1]),
        "activations are flat": values(lambda a: a.reshape(len(a), -1)),
        "positions are texts": positions(lambda p: p.astype(str)),
        "positions are floats": positions(lambda p: p.astype(float)),
        "positions are nothing": positions(always(None)),
        "positions are nested": positions(lambda p: [[0], [1, 2]]),
        "positions are too large": positions(lambda p: p + 1),
        "positions are negative": positions(lambda p: p - 1),
        "positions are huge": positions(lambda p: [10**30] * len(p)),
        "positions repeat": positions(lambda p: p // 2),
        "nothing for a prompt": lambda good: [
            replace(good[0], positions=good[0].positions[1:], activations=good[0].activations[1:])
        ],
        "nothing at all": always([]),
        "one is no Samples": lambda good: [good[0].activations],
        "gives empty batches for ever": empty,
        "gives a batch for ever": endless,
        "breaks off": breaking_off(ValueError("no more")),
        "raises what is no Exception": raising(Rude("out of my way")),
    }


def _self_test() -> dict[str, Spoil]:
    deep: list[Any] = []
    deep.append(deep)
    return {
        **junk(but=("a mapping",)),
        "a value is NaN": always({"difference": NAN}),
        "a value is a text": always({"difference": "small"}),
        "a value is an object": always({"difference": object()}),
        "a key is a number": always({5: 0.0}),
        "a value holds itself": always({"difference": deep}),
        "raises what is no Exception": raising(Rude("out of my way")),
    }


def _model() -> dict[str, Spoil]:
    return {
        **junk(),
        **of_numbers("depth", attribute),
        **of_numbers("hidden_size", attribute),
        **of_texts("weights_sha256", attribute),
        "model_sha256 is bytes": attribute(model_sha256=b"no text"),
        "model_sha256 raises": broken_property("model_sha256", ValueError("no files")),
        "model_sha256 lacks something": broken_property("model_sha256", AttributeError("no files")),
        **{
            f"{name} is a number": attribute(**{name: 5})
            for name in ("name", "source", "dtype", "device", "licence", "quantisation")
        },
        "name is nothing": attribute(name=None),
        "weights_sha256 is empty": attribute(weights_sha256=""),
        "weights_sha256 raises": broken_property("weights_sha256", ValueError("no weights")),
        "weights_sha256 exits": broken_property("weights_sha256", SystemExit(3)),
        "depth raises": broken_property("depth", Rude("no depth")),
        "raises what is no Exception": raising(Rude("out of my way")),
    }


def _model_that_reads() -> dict[str, Spoil]:
    states: dict[str, Spoil] = {
        **junk(),
        "nothing": always(None),
        "no state": always([]),
        "lists": lambda good: [item.tolist() for item in good],
        "another shape": lambda good: [item[0] for item in good],
        "NaN": lambda good: [item * NAN for item in good],
        "infinities": lambda good: [item + INFINITE for item in good],
        "an exit": raising(SystemExit(3)),
    }
    ranges: dict[str, Spoil] = {
        **junk(),
        "nothing": always(None),
        "texts": always(["dog"]),
        "floats": always([(0.0, 2.0)]),
        "one number": always([(2,)]),
        "numbers of different lengths": always([(0, 2), (2,)]),
        "places beyond the text": always([(0, 10**9)]),
        "falling places": always([(2, 0)]),
        "places without end": lambda good: itertools.repeat((0, 1)),
        "an error": raising(ValueError("no tokens")),
    }
    return {
        **{f"forward gives {words}": method("forward", spoil) for words, spoil in states.items()},
        **{f"tokens gives {words}": method("tokens", spoil) for words, spoil in ranges.items()},
        **{f"max_tokens is {w}": attribute(max_tokens=v) for w, v in {"a text": "many", "zero": 0}.items()},
        "max_tokens raises": broken_property("max_tokens", ValueError("who knows")),
    }


def _model_that_writes() -> dict[str, Spoil]:
    texts: dict[str, Spoil] = {
        **junk(),
        "nothing": always(None),
        "too few": lambda good: good[1:],
        "texts without end": lambda good: itertools.repeat("and "),
        "numbers": lambda good: [5 for _ in good],
        "a text with NUL": lambda good: ["a\0" for _ in good],
        "a text that never stops": lambda good: ["and " * 300_000 for _ in good],
        "an exit": raising(SystemExit(3)),
    }
    return {f"generate gives {words}": method("generate", spoil) for words, spoil in texts.items()}


def _scores_of_readings() -> dict[str, Spoil]:
    return {
        "NaN": lambda good: good * np.float32(NAN),
        "infinities": lambda good: good - np.float32(INFINITE),
        "another shape": lambda good: good[:, :-1],
        "a list": lambda good: good.tolist(),
        "nothing": always(None),
        "whole numbers": lambda good: good.astype(np.int32),
        "objects": lambda good: good.astype(object),
        "texts": lambda good: good.astype(str),
        "an error": raising(ValueError("can't read")),
        "an exit": raising(SystemExit(3)),
        "what is no Exception": raising(Rude("can't read")),
    }


def _interpreter() -> dict[str, Spoil]:
    known: dict[str, Spoil] = {
        "nothing": always(None), "a number": always(5), "numbers": lambda good: [5 for _ in good],
        "a text": always("c0"), "others": lambda good: good[::-1], "too few": lambda good: good[1:],
        "ids without end": lambda good: itertools.repeat("c0"),
    }  # fmt: skip
    return {
        **junk(),
        **{f"read gives {words}": method("read", spoil) for words, spoil in _scores_of_readings().items()},
        **{f"concepts are {words}": attribute_of("concepts", spoil) for words, spoil in known.items()},
        "raises what is no Exception": raising(Rude("out of my way")),
    }


def _interpreter_that_saves() -> dict[str, Spoil]:
    def link(folder: Path) -> None:
        (folder / "config.json").symlink_to(os.devnull)

    return {
        "save writes nothing": attribute(save=lambda folder: None),
        "save writes a link": attribute(save=link),
        "save writes a pipe": attribute(save=lambda folder: os.mkfifo(folder / "config.json")),
        "save raises": attribute(save=method_raising(OSError("no room"))),
        "save exits": attribute(save=method_raising(SystemExit(0))),
    }


def _interpreter_that_grows() -> dict[str, Spoil]:
    return {
        "add_concepts raises": attribute(add_concepts=lambda *given: 1 / 0),
        "add_concepts does nothing": attribute(add_concepts=lambda *given: None),
    }


def _scores() -> dict[str, Spoil]:
    deep: list[Any] = []
    deep.append(deep)
    wide = [[[0.0] * 99] * 99] * 999
    arrays: dict[str, Spoil] = {
        "a list": lambda a: a.tolist(),
        "nothing": always(None),
        "texts": lambda a: a.astype(str),
        "infinite": lambda a: a + np.float32(INFINITE),
        "partly NaN": lambda a: a * np.float32(NAN),
        "too few": lambda a: a[1:],
        "flat": lambda a: a[:, None],
        "above 1": lambda a: a + np.float32(1),
        "negative": lambda a: a - np.float32(1),
    }
    calibrations: dict[str, Any] = {
        "nothing": None, "a list": [], "NaN": {"ece": NAN}, "infinite": {"mine": INFINITE}, "a text": {"ece": "good"},
        "an object": {"mine": object()}, "a baseline's text": {"centroid": {"ece": "good"}},
        "bins of texts": {"bins": [["a", "b"]]}, "a key that is a number": {5: 1.0}, "a circle": {"mine": deep},
        "too long": {"mine": wide}, "half a character": {"mine": "\ud800"},
    }  # fmt: skip
    return {
        **junk(),
        **{
            f"{name} is {words}": field_of(name, spoil)
            for name in ("confidence", "low", "high")
            for words, spoil in arrays.items()
        },
        **{f"calibration is {words}": field(calibration=value) for words, value in calibrations.items()},
        "calibrator is a number": field(calibrator=5),
        **{
            f"the calibrator's {name} is {words}": field_of("calibrator", field(**{name: value}))
            for name in ("temperature", "score_known", "distance_strange", "conformal", "n")
            for words, value in {"a text": "1", "NaN": NAN}.items()
        },
        "the calibrator's temperature is zero": field_of("calibrator", field(temperature=0.0)),
        "the calibrator's rung is nothing": field_of("calibrator", field(fitted_on=None)),
        "the calibrator has no distribution": field_of("calibrator", field(distribution=None)),
        "the calibrator's mean is NaN": field_of(
            "calibrator", field_of("distribution", field_of("mean", lambda m: m * np.float32(NAN)))
        ),
        "the calibrator's std is zero": field_of(
            "calibrator", field_of("distribution", field_of("std", np.zeros_like))
        ),
        "raises what is no Exception": raising(Rude("out of my way")),
    }


def _executor() -> dict[str, Spoil]:
    stranger = UnitReceipt("0" * 32, "nowhere")
    receipts: dict[str, Spoil] = {
        "nothing": always(None),
        "a number": always(5),
        "numbers": always([5]),
        "no receipt": always([]),
        "a receipt of another unit": always([stranger]),
        "an error": raising(ValueError("no workers")),
        "an exit": raising(SystemExit(3)),
        "what is no Exception": raising(Rude("no workers")),
    }
    return {
        **junk(),
        **{f"run gives {words}": method("run", spoil) for words, spoil in receipts.items()},
        "raises what is no Exception": raising(Rude("out of my way")),
        "close raises": attribute(close=lambda: 1 / 0),  # the last one: the units are done
    }


READING = {
    "concepts": attribute_of("concepts", lambda known: known[::-1]),
    **{f"read gives {words}": method("read", spoil) for words, spoil in _scores_of_readings().items()},
    "returns a number": always(5),
    "exits": raising(SystemExit(3)),
}
MISTAKES: Sequence[Mistake] = [
    *mistakes("load_concepts", _concepts()),
    *mistakes("sample_prompts", _prompts()),
    *mistakes("load_model", _model()),
    *mistakes("load_model", _model_that_reads(), "read"),
    *mistakes("load_model", _model_that_writes(), "run --sampler diverse"),
    *mistakes("capture_layers", _samples()),
    *mistakes("check_capture", _self_test()),
    *mistakes("store_activations", of_a_store()),
    *mistakes("store_activations", of_a_store_that_finishes()),
    *mistakes("train_interpreter", _interpreter()),
    *mistakes("train_interpreter", _interpreter_that_saves()),
    *mistakes("train_interpreter", _interpreter_that_grows(), "evaluate"),
    *mistakes("load_interpreter", READING, "read"),
    *mistakes("load_interpreter", READING, "report"),
    *mistakes("score_confidence", _scores()),
    *mistakes("run_units", _executor()),
]
"""Every mistake; those of one hook, met one after the other in one directory, must leave a run that goes on."""
